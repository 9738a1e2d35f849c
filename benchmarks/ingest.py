"""Interactions stored over HTTP, in rows a second, as a share of what the database takes without any service.

    python -m benchmarks.ingest [--seconds 4] [--rows 100,500] [--connections 1,8] [--workers 1,2] [--json PATH]

The service runs as it does for anybody: commits are on disk before the answer (`synchronous=FULL`, `fsync` on), each
event has an id of its own and is checked against those stored, users' revisions are raised, nothing is switched off.
A batch has events of users and items drawn at random from 20,000 and 4,000, which are there already. The yardstick
inserts the same rows into the same table with its indexes, a batch a transaction, over as many connections, with what
the database is fastest with: `unnest` arrays through asyncpg, `executemany` through sqlite3 (which has one writer).

Everything runs on one machine, so beside the rate there is what a row takes of a core in the load generator, in the
service and in Postgres: what a machine with more cores makes of it, and what the generator takes away from the others.
"""

import asyncio
import json
import random
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import httpx
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from app.storage.database import Database
from benchmarks.closed_loop import Job, request, run
from tests.chaos.databases import database as new_database
from tests.chaos.databases import scratch
from tests.e2e.service import Server, cpu_seconds, warmstart

N_USERS = 20_000
N_ITEMS = 4_000
WARM_UP_SECONDS = 0.5
MOST_ROWS_A_SECOND = 60_000
"""More than any of this reaches: as many events are made, so that none is sent twice."""
COLUMNS = "event_id, content_digest, user_key, item_key, kind, value, occurred_at, received_at"
UNNEST = f"""INSERT INTO interactions ({COLUMNS}) SELECT * FROM unnest(
    $1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::text[], $6::float[], $7::bigint[], $8::bigint[])"""


@dataclass(frozen=True)
class Line:
    """One way to store, in batches of one size, at one number of connections."""

    database: str
    way: str
    rows: int
    connections: int
    rows_per_second: float
    share_of_bare: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    refused: int = 0
    client_us: float | None = None
    """Microseconds of a core that a row takes in the load generator; the same in the others."""
    service_us: float | None = None
    database_us: float | None = None


def main(
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 4.0,
    rows: Annotated[str, typer.Option(help="Numbers of events of a batch.")] = "100,500",
    connections: Annotated[str, typer.Option(help="Numbers of connections.")] = "1,8",
    workers: Annotated[str, typer.Option(help="Numbers of workers, on Postgres.")] = "1,2",
    database: Annotated[str, typer.Option(help="sqlite, postgres or both.")] = "both",
    json_path: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure, print a table."""
    lines: list[Line] = []
    for name in ("sqlite", "postgres") if database == "both" else (database,):
        several = _numbers(workers) if name == "postgres" else [1]
        for size in _numbers(rows):
            with scratch() as folder, new_database(name, folder) as url:
                lines += measure(folder, name, url, seconds, size, _numbers(connections), several)
    show(lines)
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(line) for line in lines], indent=2), encoding="utf-8")


def measure(
    folder: Path, name: str, url: str, seconds: float, rows: int, counts: list[int], workers: list[int]
) -> list[Line]:
    """The service and the yardstick on one database, which both fill further."""
    with warmstart(folder, database_url=url, log_level="warning", learn_seconds=0) as server:
        _stock(server.url)
    postgres = asyncio.run(_postmaster(url)) if name == "postgres" else None
    lines = []
    for n in counts:
        bare = _bare_rate(name, url, seconds, rows, n)
        lines.append(Line(name, "bare insert", rows, n, round(bare), 1.0))
        for several in workers:
            with warmstart(folder, database_url=url, log_level="warning", workers=several) as server:
                lines.append(_over_http(server, name, url, seconds, rows, n, several, bare, postgres))
    return lines


def _over_http(
    server: Server,
    name: str,
    url: str,
    seconds: float,
    rows: int,
    connections: int,
    workers: int,
    bare: float,
    postgres: int | None,
) -> Line:
    """The service's line; `postgres` is the process that all of Postgres's are children of."""
    chance = random.Random(0)
    n_batches = int(MOST_ROWS_A_SECOND * (seconds + WARM_UP_SECONDS) / rows)
    batches = [_batch(chance, f"{connections}-{workers}-{number}", rows) for number in range(n_batches)]
    pids = [server.process.pid, *([postgres] if postgres else [])]
    stored = asyncio.run(_stored(url))
    before = [cpu_seconds(pid) for pid in pids]
    job = Job(port=server.port, requests=batches, connections=connections, seconds=seconds)
    result = run(job)
    spent = [cpu_seconds(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    stored = asyncio.run(_stored(url)) - stored
    if stored < result.completed * rows:
        raise RuntimeError(f"{result.completed * rows} events acknowledged and {stored} stored")
    latencies = sorted(result.latencies)
    rate = result.rate * rows
    p50, p99 = (round(1e3 * latencies[int(q * (len(latencies) - 1))], 1) for q in (0.5, 0.99))
    service_us, *database_us = (round(1e6 * cpu / stored, 1) for cpu in spent)
    return Line(
        name,
        f"HTTP, {workers} worker{'s' if workers > 1 else ''}",
        rows,
        connections,
        round(rate),
        round(rate / bare, 3),
        p50,
        p99,
        result.refused,
        round(1e6 * result.cpu_seconds / (result.completed * rows), 1),
        service_us,
        *database_us,
    )


def show(lines: list[Line]) -> None:
    """Print the table."""
    heads = ("database", "way", "rows a batch", "connections", "rows/s", "of bare", "p50 ms", "p99 ms", "refused")
    table = Table(*heads, "client", "service", "database")
    for line in lines:
        times = (line.p50_ms, line.p99_ms, line.client_us, line.service_us, line.database_us)
        p50, p99, *shares = ("" if value is None else f"{value:.1f}" for value in times)
        figures = (f"{line.rows_per_second:,.0f}", f"{line.share_of_bare:.3f}", p50, p99, str(line.refused))
        table.add_row(line.database, line.way, str(line.rows), str(line.connections), *figures, *shares)
    console = Console(width=140)
    console.print("events with ids, committed to disk before the answer; client, service, database: µs of a core a row")
    console.print(table)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _stock(url: str) -> None:
    """A domain, its items and the users."""
    with httpx.Client(base_url=url, timeout=60) as client:
        client.put("/v1/domains/shop", json={}).raise_for_status()
        for start in range(0, N_ITEMS, 500):
            items = [{"domain": "shop", "item_id": f"item-{i}"} for i in range(start, start + 500)]
            client.post("/v1/items", json={"items": items}).raise_for_status()
        for start in range(0, N_USERS, 500):
            users = [{"user_id": f"user-{i}"} for i in range(start, start + 500)]
            client.post("/v1/users", json={"users": users}).raise_for_status()


def _batch(chance: random.Random, name: str, rows: int) -> str:
    events = [
        {
            "event_id": f"{name}-{row}",
            "user_id": f"user-{chance.randrange(N_USERS)}",
            "domain": "shop",
            "item_id": f"item-{chance.randrange(N_ITEMS)}",
            "value": chance.randint(1, 5),
            "occurred_at": 1_700_000_000 + row,
        }
        for row in range(rows)
    ]
    return request("POST", "/v1/interactions", json.dumps({"interactions": events}, separators=(",", ":")).encode())


async def _stored(url: str) -> int:
    database = await Database.open(url)
    try:
        async with database.read() as connection:
            return int((await connection.exec_driver_sql("SELECT COUNT(*) FROM interactions")).scalar_one())
    finally:
        await database.close()


async def _postmaster(url: str) -> int:
    """The process that all others of a Postgres on this machine are children of."""
    connection = await asyncpg.connect(url)
    try:
        folder = Path(await connection.fetchval("SHOW data_directory"))
    finally:
        await connection.close()
    return int((folder / "postmaster.pid").read_text(encoding="utf-8").split("\n")[0])


Row = tuple[str, bytes, int, int, str, float, int, int]


def _rows(chance: random.Random, name: str, rows: int) -> list[Row]:
    """Rows as the service makes them of a batch."""
    at = 1_700_000_000_000_000

    def row(number: int) -> Row:
        user_key, item_key = chance.randint(1, N_USERS), chance.randint(1, N_ITEMS)
        return f"{name}-{number}", chance.randbytes(16), user_key, item_key, "rating", 4.0, at + number, at

    return [row(number) for number in range(rows)]


def _bare_rate(name: str, url: str, seconds: float, rows: int, connections: int) -> float:
    """Rows a second that the database takes."""
    if name == "sqlite":
        return _bare_sqlite(make_url(url).database or "", seconds, rows)
    return asyncio.run(_bare_postgres(url, seconds, rows, connections))


def _bare_sqlite(path: str, seconds: float, rows: int) -> float:
    chance = random.Random()
    marks = ", ".join("?" * 8)
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        started, done, spent = time.perf_counter(), 0, 0.0
        while spent < seconds:
            some = _rows(chance, f"bare-{chance.getrandbits(60)}", rows)
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO interactions ({COLUMNS}) VALUES ({marks})", some)
            connection.execute("COMMIT")
            spent += time.perf_counter() - started
            done += rows
    return done / spent


async def _bare_postgres(url: str, seconds: float, rows: int, connections: int) -> float:
    chance = random.Random()
    batches: list[Any] = [
        list(zip(*_rows(chance, f"bare-{chance.getrandbits(60)}", rows), strict=True))
        for _ in range(int(MOST_ROWS_A_SECOND * 2 * seconds / rows))
    ]
    pool = [await asyncpg.connect(url) for _ in range(connections)]
    done = 0

    async def insert(connection: Any, until: float) -> None:
        nonlocal done
        while batches and time.perf_counter() < until:
            await connection.execute(UNNEST, *batches.pop())
            done += rows

    started = time.perf_counter()
    await asyncio.gather(*(insert(connection, started + seconds) for connection in pool))
    spent = time.perf_counter() - started
    for connection in pool:
        await connection.close()
    return done / spent


if __name__ == "__main__":
    typer.run(main)
