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
) -> int:
    """Serve a role of a domain from this checkpoint; the revision of that decision."""
    revision = await revisions.advance(connection, "deployments")
    await connection.execute(
        insert(_DEPLOYMENTS).values(
            domain_key=domain_key, role=role, checkpoint=checkpoint, digest=digest, created_at=microseconds(now)
        )
    )
    return revision


async def earlier(connection: AsyncConnection, domain_key: int, role: str) -> Deployment | None:
    """The last decision about a role that differs from the present one: where a rollback goes; None without one."""
    rows = await connection.execute(_OF_ROLE, {"domain_key": domain_key, "role": role})
    decisions = [_stored(row) for row in rows]
    return next((decision for decision in decisions if _differ(decision, decisions[0])), None)


async def wanted(connection: AsyncConnection) -> list[Wanted]:
    """What should be served, by domain and role."""
    rows = await connection.execute(_WANTED)
    return [Wanted(row.domain, row.role, row.checkpoint, row.digest) for row in rows]


async def history(connection: AsyncConnection, domain_key: int, limit: int = 100) -> list[Deployment]:
    """The last decisions about a domain, newest first."""
    return [_stored(row) for row in await connection.execute(_HISTORY, {"domain_key": domain_key, "size": limit})]


def _differ(one: Deployment, other: Deployment) -> bool:
    return (one.checkpoint, one.digest) != (other.checkpoint, other.digest)


def _stored(row: Row[Any]) -> Deployment:
    return Deployment(row.key, row.domain, row.role, row.checkpoint, row.digest, seconds(row.created_at))
