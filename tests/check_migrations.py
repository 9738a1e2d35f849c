"""`python -m tests.check_migrations`: exit with 1, saying what differs, unless migrations make exactly the tables."""

import asyncio
import sys
import tempfile
from pathlib import Path

from app.storage.database import Database


async def differences() -> list[str]:
    """What autogenerate would still put into a migration, after all of them ran on a fresh SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(f"sqlite:///{Path(folder) / 'fresh.db'}")
        try:
            await database.upgrade()
            return await database.differences()
        finally:
            await database.close()


def main() -> int:
    """The exit code."""
    found = asyncio.run(differences())
    for difference in found:
        print(difference)
    print("migrations and tables differ" if found else "migrations make the tables")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
