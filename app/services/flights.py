"""One maker, many who wait: what is being made at the moment is not made a second time beside it."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Flights(Generic[V]):
    """Whoever finds nobody making a thing makes it, and must `land` it, whatever comes of that."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Future[V | None]] = {}

    async def join(self, key: Hashable) -> V | None:
        """What another task is making, when it is made. None: nobody is, and the caller is to make it."""
        while (flight := self._under_way.get(key)) is not None:
            made = await asyncio.shield(flight)
            if made is not None:
                return made
        self._under_way[key] = asyncio.get_running_loop().create_future()
        return None

    def land(self, key: Hashable, made: V | None) -> None:
        """Give what was made to those who wait; None where it failed: then one of them makes it. Done twice, it counts
        once."""
        flight = self._under_way.pop(key, None)
        if flight is not None:
            flight.set_result(made)
