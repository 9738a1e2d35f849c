"""HTTP routes and their request and response schemas; no logic."""
