"""A 2xx answer to a write begins only after the commit: what it stored is seen from outside by then."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select, text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.storage import tables
from app.storage.database import Connection, Database
from tests.app.conftest import Service, Start

Content = dict[str, Sequence[Any]]


class Observer:
    """Between an application and its clients: notes what another connection sees as an answer begins."""

    def __init__(self, app: ASGIApp, other: Database) -> None:
        self.app = app
        self.other = other
        self.seen: Content = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen = await self.content()
            await send(message)

        await self.app(scope, receive, observed)

    async def content(self) -> Content:
        """Every row of every table."""
        async with self.other.read(snapshot=True) as connection:
            return {
                name: sorted((await connection.execute(select(table))).all(), key=repr)
                for name, table in tables.metadata.tables.items()
            }

    async def committed_by_its_answer(self, method: str, path: str, body: Any = None) -> bool:
        """Whether a request that must succeed and write has written all it does by the time its answer begins."""
        before = await self.content()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self), base_url="http://localhost") as http:
            response = await http.request(method, path, json=body)
        assert response.is_success, response.text
        after = await self.content()
        assert after != before
        return self.seen == after


async def _writes(service: Service) -> list[tuple[str, str, Any]]:
    """One of each route that writes, in an order in which each has something to do."""
    event = {"user_id": "ada", "domain": "films", "item_id": "item1", "value": 4, "event_id": "e1"}
    slate = await service.post("/v1/cold-start/recommendations", {"domain": "films"})
    reward = {"slate_id": slate["slate_id"], "item_id": slate["items"][0]["item_id"], "value": 1}
    exploration = {"domain": "films", "exploration": {"policy": "epsilon_greedy"}}
    return [
        ("POST", "/v1/interactions", {"interactions": [event]}),
        ("POST", "/v1/rewards", {"rewards": [reward]}),
        ("POST", "/v1/users", {"users": [{"user_id": "grace"}]}),
        ("PUT", "/v1/users/ada", {"attributes": {"age": 30}}),
        ("POST", "/v1/recommendations", {"domain": "films", "user_id": "ada"}),
        ("POST", "/v1/cold-start/recommendations", {"domain": "films"}),
        ("GET", "/v1/users/ada/recommendations?domain=films", None),
        ("PUT", "/v1/domains/books", {}),
        ("POST", "/v1/items", {"items": [{"domain": "films", "item_id": "new"}]}),
        ("PUT", "/v1/items/films/new", {"title": "New"}),
        ("DELETE", "/v1/items/films/new", None),
        ("PUT", "/v1/admin/exploration", exploration),
        ("POST", "/v1/admin/checkpoints/reload", {"domain": "films", "checkpoint": "bias"}),
        ("POST", "/v1/admin/checkpoints/rollback", {"domain": "films", "role": "collaborative"}),
        ("POST", "/v1/users/ada/merge", {"from": "grace"}),
        ("DELETE", "/v1/interactions/e1", None),
        ("DELETE", "/v1/users/ada", None),
    ]


async def test_every_write_is_committed_before_its_answer_begins(start: Start, database_url: str) -> None:
    async with start(("bias", "bayes"), database_url=database_url) as service:
        other = await Database.open(database_url)
        observer = Observer(service.app, other)
        try:
            for method, path, body in await _writes(service):
                assert await observer.committed_by_its_answer(method, path, body), (method, path)
        finally:
            await other.close()


@pytest.mark.parametrize("early", [True, False], ids=["before the reply", "after the reply"])
async def test_the_observer_tells_a_commit_after_the_reply(database: Database, database_url: str, early: bool) -> None:
    """The trap: FastAPI runs what follows a dependency's `yield` after the answer has gone."""
    app = FastAPI()

    async def transaction() -> AsyncIterator[Connection]:
        async with database.write() as connection:
            yield connection

    given = Depends(transaction, scope="function" if early else "request")

    @app.post("/write")
    async def write(connection: Annotated[Connection, given]) -> dict[str, bool]:
        await connection.execute(text("INSERT INTO revisions (name, value) VALUES ('new', 1)"))
        return {"ok": True}

    other = await Database.open(database_url)
    try:
        assert await Observer(app, other).committed_by_its_answer("POST", "/write") is early
    finally:
        await other.close()
