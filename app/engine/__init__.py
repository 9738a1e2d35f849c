"""Loaded checkpoints, batching, blending and exploration."""
