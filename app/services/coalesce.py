"""Many callers, one call: what arrives while a call is under way goes together into the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """Groups concurrent calls without waiting for them.

    A call never joins one that began before it, so its result reflects everything that was committed when it was made:
    a revision read by a request is at least as new as the request. Results come in the order of the items; an
    exception goes to every caller of the group.
    """

    def __init__(self, run: Callable[[Sequence[T]], Awaitable[Sequence[R]]], max_group: int = 256) -> None:
        self._run = run
        self._max_group = max_group
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._max_group], self._waiting[self._max_group :]
                await self._call(group)
        finally:
            self._task = None

    async def _call(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in group])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._task is not None:
            await self._task
