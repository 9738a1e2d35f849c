"""Metrics, protocols, significance and reports."""
