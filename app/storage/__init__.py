"""Tables, sessions and queries: all SQL lives here."""
