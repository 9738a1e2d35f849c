"""Speed measurements: each a command that prints ratios of the same run."""
