"""Which checkpoint each role of a domain should be served from. Every worker follows; the newest decision counts."""

from typing import Any

from sqlalchemy import Row, bindparam, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import revisions, tables
from app.storage.records import Deployment, Wanted, microseconds, seconds

_DEPLOYMENTS = tables.deployments
_DOMAINS = tables.domains
_NEWEST = select(func.max(_DEPLOYMENTS.c.key)).group_by(_DEPLOYMENTS.c.domain_key, _DEPLOYMENTS.c.role)
_NAMED = select(_DEPLOYMENTS, _DOMAINS.c.name.label("domain")).join(
    _DOMAINS, _DOMAINS.c.key == _DEPLOYMENTS.c.domain_key
)
_WANTED = _NAMED.where(_DEPLOYMENTS.c.key.in_(_NEWEST), _DEPLOYMENTS.c.checkpoint.is_not(None)).order_by(
    _DOMAINS.c.key, _DEPLOYMENTS.c.role
)
_HISTORY = (
    _NAMED.where(_DEPLOYMENTS.c.domain_key == bindparam("domain_key"))
    .order_by(_DEPLOYMENTS.c.key.desc())
    .limit(bindparam("size"))
)
_OF_ROLE = _NAMED.where(
    _DEPLOYMENTS.c.domain_key == bindparam("domain_key"), _DEPLOYMENTS.c.role == bindparam("role")
).order_by(_DEPLOYMENTS.c.key.desc())


async def deploy(
    connection: AsyncConnection, domain_key: int, role: str, checkpoint: str, digest: str, now: float
) -> None:
    """Serve a role of a domain from this checkpoint."""
    await revisions.advance(connection, "deployments")
    await _decide(connection, domain_key, role, checkpoint, digest, now)


async def rollback(connection: AsyncConnection, domain_key: int, role: str, now: float) -> Deployment | None:
    """Go back to the last checkpoint that differs from the present one, which is None where the role was removed then.

    Returns what was decided; None, with nothing changed, where the role never had another.
    """
    parameters = {"domain_key": domain_key, "role": role}
    await revisions.advance(connection, "deployments")
    decisions = [_stored(row) for row in await connection.execute(_OF_ROLE, parameters)]
    for earlier in decisions[1:]:
        if (earlier.checkpoint, earlier.digest) != (decisions[0].checkpoint, decisions[0].digest):
            await _decide(connection, domain_key, role, earlier.checkpoint, earlier.digest, now)
            return _stored((await connection.execute(_OF_ROLE.limit(1), parameters)).one())
    return None


async def remove(connection: AsyncConnection, domain_key: int, role: str, now: float) -> None:
    """Serve the role no more."""
    await revisions.advance(connection, "deployments")
    await _decide(connection, domain_key, role, None, None, now)


async def wanted(connection: AsyncConnection) -> list[Wanted]:
    """What should be served, by domain and role."""
    rows = await connection.execute(_WANTED)
    return [Wanted(row.domain, row.role, row.checkpoint, row.digest) for row in rows]


async def history(connection: AsyncConnection, domain_key: int, limit: int = 100) -> list[Deployment]:
    """The last decisions about a domain, newest first."""
    return [_stored(row) for row in await connection.execute(_HISTORY, {"domain_key": domain_key, "size": limit})]


async def _decide(
    connection: AsyncConnection, domain_key: int, role: str, checkpoint: str | None, digest: str | None, now: float
) -> None:
    await connection.execute(
        insert(_DEPLOYMENTS).values(
            domain_key=domain_key, role=role, checkpoint=checkpoint, digest=digest, created_at=microseconds(now)
        )
    )


def _stored(row: Row[Any]) -> Deployment:
    return Deployment(row.key, row.domain, row.role, row.checkpoint, row.digest, seconds(row.created_at))
