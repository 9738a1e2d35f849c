"""Refusals over real connections: the answer arrives whatever the caller was still sending, and the next one too."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn

from app.security import Scope
from app.services import access
from tests.app.conftest import Service, Start
from tests.app.keyed import bearer, locked
from tests.app.refusals import JSON, refused

MIB = 1024 * 1024


class Server(uvicorn.Server):
    """uvicorn within the test, which keeps its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks to the service through a socket."""
    server = Server(uvicorn.Config(service.app, lifespan="off", log_level="error"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who connects before the server has started waits
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
            yield http
        server.should_exit = True
        await serving


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """A body whose length nobody is told beforehand."""
    for _ in range(size // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize("size", [MIB + 65_536, 4 * MIB])
@pytest.mark.parametrize("chunked", [False, True], ids=["by length", "chunked"])
async def test_a_body_that_is_too_large_is_answered(start: Start, size: int, chunked: bool) -> None:
    """It is read to its end, so that the connection is good for the next request."""
    async with start(()) as service, listening(service) as http:
        for _ in range(3):
            content = in_pieces(size) if chunked else b" " * size
            refused(await http.post("/v1/interactions", content=content, headers=JSON), "payload-too-large")
            assert (await http.get("/v1/domains")).status_code == 200


async def test_headers_that_are_too_large_are_answered(start: Start) -> None:
    async with start(()) as service, listening(service) as http:
        refused(await http.get("/v1/domains", headers={"x-canary": "x" * 33_000}), "headers-too-large")
        assert (await http.get("/v1/domains")).status_code == 200


async def test_who_has_no_key_is_told_so_whatever_they_send(start: Start) -> None:
    """A megabyte, or a megabyte in pieces: 401, and the same connection takes a key afterwards."""
    async with locked(start) as (service, scoped), listening(service) as http:
        for content in (b" " * MIB, in_pieces(MIB)):
            refused(await http.post("/v1/interactions", content=content, headers=JSON), "unauthorized")
            assert (await http.get("/v1/domains", headers=bearer(scoped[Scope.READ]))).status_code == 200


@pytest.mark.parametrize(
    ("scope", "status"), [(None, b"401"), (Scope.READ, b"403")], ids=["without a key", "without the scope"]
)
@pytest.mark.parametrize("more", ["", "Expect: 100-continue\r\n"], ids=["unasked", "asked before"])
async def test_who_may_not_is_told_so_before_the_body(
    start: Start, scope: Scope | None, status: bytes, more: str
) -> None:
    """Not a byte of the body is sent, and there is no time in which it would have to arrive."""
    async with locked(start, body_timeout_seconds=3600) as (service, scoped), listening(service) as http:
        refused(await http.get("/v1/domains"), "unauthorized")  # from here on the worker knows that there are keys
        reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        head = "POST /v1/interactions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        key = "" if scope is None else f"Authorization: Bearer {scoped[scope]}\r\n"
        writer.write(f"{head}{key}{more}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == status
        writer.close()


async def test_a_key_that_a_worker_has_not_heard_of_yet_has_its_body_read(start: Start) -> None:
    """The body is left unread for keys that it does not know; the route knows better, and reads it, within limits."""
    async with locked(start) as (service, _), listening(service) as http:
        refused(await http.get("/v1/domains"), "unauthorized")
        key = await access.create(service.installation.database, "new", [Scope.INGEST])
        body = {"users": [{"user_id": "ann"}]}
        assert (await http.post("/v1/users", json=body, headers=bearer(key))).status_code == 200
        key = await access.create(service.installation.database, "newer", [Scope.INGEST])
        headers = JSON | bearer(key)
        refused(await http.post("/v1/users", content=in_pieces(2 * MIB), headers=headers), "payload-too-large")
        assert (await http.post("/v1/users", json=body, headers=bearer(key))).status_code == 200


async def test_a_body_that_stalls_is_answered(start: Start) -> None:
    """The first half arrives, the second never does: the answer comes all the same."""
    async with start((), body_timeout_seconds=0.2) as service, listening(service) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        head = "POST /v1/interactions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
