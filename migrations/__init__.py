"""The database's history: Alembic scripts, which `warmstart db upgrade` and every starting worker run."""
