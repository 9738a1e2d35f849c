"""Recommenders and everything offline: data sets, training, evaluation. Knows torch and data, never the service."""
