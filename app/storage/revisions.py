"""Counters that tell every worker whether something changed, in one tiny query on the hot path."""

from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.records import Revisions

_READ = select(tables.revisions.c.name, tables.revisions.c.value)


async def read(connection: AsyncConnection) -> Revisions:
    """Where the counters stand."""
    values = {row.name: row.value for row in await connection.execute(_READ)}
    return Revisions(catalogue=values["catalogue"], deployments=values["deployments"])


async def advance(connection: AsyncConnection, name: Literal["catalogue", "deployments"]) -> int:
    """Raise a counter by one; its new value.

    Others who would raise it wait until this transaction ends. So it comes before the changes it stands for (all
    writers lock in the same order), and whoever reads a revision finds all changes up to it.
    """
    revisions = tables.revisions
    raised = update(revisions).where(revisions.c.name == name).values(value=revisions.c.value + 1)
    return int((await connection.execute(raised.returning(revisions.c.value))).scalar_one())
