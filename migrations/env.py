"""What Alembic runs: migrations on the connection given by `app.storage.migrate`, or on WARMSTART_DATABASE_URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection

from app.storage.database import Database
from app.storage.tables import metadata


def migrate(connection: Connection) -> None:
    """Run the migrations asked for, in the transaction of the connection."""
    # SQLite alters a table by copying it ("batch").
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_from_the_command_line() -> None:
    """For `alembic revision --autogenerate` and its like, at a developer's desk."""
    database = await Database.open(os.environ["WARMSTART_DATABASE_URL"])
    try:
        async with database.write() as connection:
            await connection.run_sync(migrate)
    finally:
        await database.close()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(migrate_from_the_command_line())
