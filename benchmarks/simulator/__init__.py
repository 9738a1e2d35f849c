"""A world with known truth, in which policies run against the real service."""
