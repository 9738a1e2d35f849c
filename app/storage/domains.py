"""Domains: catalogues with their rating scale and what kinds of events are worth."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import revisions, tables
from app.storage.records import NewDomain, StoredDomain, microseconds, seconds
from models.datasets.schema import Kind

_ALL = select(tables.domains).order_by(tables.domains.c.key)
_BY_NAME = select(tables.domains)


async def put(connection: AsyncConnection, domain: NewDomain, now: float) -> bool:
    """Create a domain or change it to what is given. Whether it was created."""
    found = await get(connection, domain.name)
    if found is not None and _content(found) == _content(domain):
        return False
    # Whoever else puts a domain waits here; what they did is seen below.
    await revisions.advance(connection, "catalogue")
    table = tables.domains
    changed = await connection.execute(
        update(table).where(table.c.name == domain.name).values(_content(domain)).returning(table.c.key)
    )
    if changed.first() is not None:
        return False
    await connection.execute(insert(table).values(name=domain.name, created_at=microseconds(now), **_content(domain)))
    return True


async def get(connection: AsyncConnection, name: str) -> StoredDomain | None:
    """The domain of that name."""
    row = (await connection.execute(_BY_NAME.where(tables.domains.c.name == name))).first()
    return None if row is None else _stored(row)


async def all(connection: AsyncConnection) -> list[StoredDomain]:
    """Every domain, oldest first."""
    return [_stored(row) for row in await connection.execute(_ALL)]


def _content(domain: NewDomain) -> Mapping[str, Any]:
    return {
        "title": domain.title,
        "rating_min": domain.rating_min,
        "rating_max": domain.rating_max,
        "kinds": {name: kind.model_dump() for name, kind in domain.kinds.items()},
        "attributes": dict(domain.attributes),
    }


def _stored(row: Row[Any]) -> StoredDomain:
    return StoredDomain(
        key=row.key,
        name=row.name,
        title=row.title,
        rating_min=row.rating_min,
        rating_max=row.rating_max,
        kinds={name: Kind.model_validate(kind) for name, kind in row.kinds.items()},
        attributes=row.attributes,
        created_at=seconds(row.created_at),
    )
