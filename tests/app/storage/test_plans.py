"""No statement of everyday requests reads a whole table."""

import re
from itertools import pairwise

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import (
    ageing,
    catalogue,
    deployments,
    domains,
    erasures,
    evaluations,
    interactions,
    item_events,
    revisions,
    rewards,
    slates,
    users,
)
from app.storage.database import Database
from app.storage.records import InteractionReward, NewDomain, NewInteraction, NewItem, StoredDomain
from tests.app.storage.conftest import DIGESTS, NOW


def batch(domain: StoredDomain, number: int) -> list[NewInteraction]:
    return [
        NewInteraction(f"u{number}-{i}", domain.key, f"i{number * 3 + i}", "click", event_id=f"e{number}-{i}")
        for i in range(100)
    ]


async def everyday_requests(connection: AsyncConnection, domain: StoredDomain) -> None:
    await revisions.read(connection)
    await interactions.add(connection, batch(domain, 10_000), NOW, DIGESTS)
    await interactions.add(connection, batch(domain, 10_000), NOW, DIGESTS)
    await interactions.remove(connection, "e10000-7")
    user = await users.get(connection, "u10000-1")
    assert user is not None
    await users.history(connection, user.key, 1)
    await users.put(connection, "u10000-1", {})
    await item_events.of_item(connection, 1, 10)
    await item_events.of_users(connection, [user.key, user.key + 1], 10)
    await item_events.attributes(connection, [user.key])
    await item_events.since(connection, "interactions", await item_events.last_key(connection))
    await slates.get(connection, [slates.new_slate_id(NOW)])
    await evaluations.of_user(connection, user.key, 10)
    await rewards.follow(connection, [InteractionReward(slates.new_slate_id(NOW), 1, "click", 1, "e")], NOW)
    await rewards.withdraw(connection, "e10000-8")
    await ageing.settle(connection, {}, NOW, 100)
    await ageing.prune(connection, NOW - 1e6, 100)
    await catalogue.put_items(connection, domain.key, [NewItem("i1", "one")])
    await catalogue.add_missing(connection, domain.key, [NewItem("i1", "one")])
    await catalogue.get_item(connection, domain.key, "i1")
    await catalogue.items_since(connection, 1_000_000)
    await catalogue.list_items(connection, domain.key, 10, cursor=5)
    await catalogue.delete_item(connection, domain.key, "i1")
    erasure = await erasures.start(connection, "u10000-2", DIGESTS, NOW)
    assert erasure is not None
    while not await erasures.step(connection, erasure.user_key, DIGESTS, NOW):
        pass
    await interactions.add(connection, batch(domain, 10_000), NOW, DIGESTS)
    await deployments.wanted(connection)


async def test_sqlite_finds_everything_through_an_index(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    domain = await _filled(database, n_batches=1)
    statements: list[tuple[str, object]] = []
    engine = database._writer.sync_engine

    def note(conn: object, cursor: object, statement: str, parameters: object, context: object, many: bool) -> None:
        if re.match("SELECT|UPDATE|DELETE", statement):
            statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    async with database.write() as connection:
        await everyday_requests(connection, domain)
    event.remove(engine, "before_cursor_execute", note)
    async with database.read() as connection:
        for statement, parameters in statements:
            plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)).all()  # type: ignore[arg-type]
            scans = [
                row.detail for row in plan if re.match(r"SCAN (users|items|interactions|slates|rewards)\b", row.detail)
            ]
            assert not scans, statement
            again = [
                row.detail for outer, row in pairwise(plan) if row.parent == outer.parent and "VIRTUAL" in row.detail
            ]
            assert not again, f"the values given are read again for each row of a table: {statement}"
    assert len(statements) > 20
    await database.close()


async def test_postgres_keeps_no_plan_made_for_tables_that_were_empty(postgres_url: str) -> None:
    database = await Database.open(postgres_url, pool_size=1)
    domain = await _filled(database, n_batches=10)  # after five executions Postgres would keep a plan
    async with database.write() as connection:
        many = [interaction for number in range(100, 400) for interaction in batch(domain, number)]
        await interactions.add(connection, many, NOW, DIGESTS)
    async with database.write() as connection:
        before = await _rows_scanned(connection)
        await everyday_requests(connection, domain)
        assert await _rows_scanned(connection) == before
    await database.close()


async def _rows_scanned(connection: AsyncConnection) -> dict[str, int]:
    """Rows read by sequential scans, by table, that this connection has not reported to the server yet."""
    read = "SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname IN ('users', 'interactions')"
    return {row.relname: row.seq_tup_read for row in await connection.execute(text(read))}


async def _filled(database: Database, n_batches: int) -> StoredDomain:
    async with database.write() as connection:
        await domains.put(connection, NewDomain("movies", 1.0, 5.0), NOW)
        domain = await domains.get(connection, "movies")
    assert domain is not None
    for number in range(n_batches):
        async with database.write() as connection:
            await interactions.add(connection, batch(domain, number), NOW, DIGESTS)
    return domain
