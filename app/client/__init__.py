"""A typed client of the service, in two forms: `Client`, and `AsyncClient` for asyncio.

    from app.client import Client

    with Client("http://127.0.0.1:8000") as client:
        slate = client.recommend("movies", support=[{"item_id": "200", "value": 5}], k=5)
        for item in slate.items:
            print(item.title, item.score)

It speaks HTTP to a running service and imports nothing of it.
"""

from app.client.asynchronous import AsyncClient
from app.client.errors import (
    Conflict,
    Invalid,
    NotFound,
    Problem,
    Unauthorized,
    Unavailable,
    Unreachable,
    WarmstartError,
)
from app.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "Invalid",
    "NotFound",
    "Problem",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WarmstartError",
]
