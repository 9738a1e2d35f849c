"""Exploration: policies that turn scores, and how uncertain they are, into slates with propensities."""
