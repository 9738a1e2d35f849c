"""How each domain explores. Raises the counter `exploration`, which every worker follows."""

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import revisions, tables
from app.storage.records import Json, microseconds

_EXPLORATION = tables.exploration
_ALL = select(tables.domains.c.name, _EXPLORATION.c.settings).join(
    tables.domains, tables.domains.c.key == _EXPLORATION.c.domain_key
)
_FORGET = delete(_EXPLORATION).where(_EXPLORATION.c.domain_key == bindparam("domain_key"))


async def put(connection: AsyncConnection, domain_key: int, settings: Json, now: float) -> None:
    """Say how a domain explores."""
    await revisions.advance(connection, "exploration")
    await connection.execute(_FORGET, {"domain_key": domain_key})
    values = {"domain_key": domain_key, "settings": dict(settings), "updated_at": microseconds(now)}
    await connection.execute(insert(_EXPLORATION).values(values))


async def all(connection: AsyncConnection) -> dict[str, Json]:
    """Settings by domain, of the domains that have any."""
    return {row.name: row.settings for row in await connection.execute(_ALL)}
