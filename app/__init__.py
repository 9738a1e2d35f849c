"""Warmstart: an online recommendation service for people and items it has barely met."""

__version__ = "0.1.0"
