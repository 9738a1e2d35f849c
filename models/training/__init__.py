"""Loops, episodes and losses that several recommenders share."""
