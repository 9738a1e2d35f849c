"""What storage has to say when it cannot do as asked."""

from collections.abc import Iterable, Sequence


class StorageUnavailable(Exception):
    """The database did not answer, or could not: unreachable, locked, out of space, out of time.

    The message names the reason and nothing of the statement; the driver's error is the `__cause__`.
    """

    def __init__(self, reason: str, *, repeatable: bool = False) -> None:
        super().__init__(f"storage unavailable: {reason}")
        self.reason = reason
        """In two or three words."""
        self.repeatable = repeatable
        """Certain that nothing was stored, and likely that the same transaction, run again at once, succeeds."""


class UnsafeDatabase(Exception):
    """The database is set to acknowledge commits that a crash would lose."""


class EventConflict(Exception):
    """An event id came again with other content."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(f"{len(rows)} event ids are already taken by other content")
        self.rows = list(rows)
        """Indices, in the batch that was refused, of the events whose ids are taken; ascending."""


class UnknownSlate(Exception):
    """A reward for a slate that is not on record."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(f"{len(rows)} rewards are for slates that are not on record")
        self.rows = list(rows)


class NotShown(Exception):
    """A reward for an item that its slate did not show."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(f"{len(rows)} rewards are for items that their slates did not show")
        self.rows = list(rows)


class UserErasing(Exception):
    """A write about users who are being erased."""

    def __init__(self, user_ids: Iterable[str]) -> None:
        self.user_ids = frozenset(user_ids)
        super().__init__(f"{len(self.user_ids)} users are being erased")  # who they are is not for the log


class WriteInFlight(Exception):
    """A write of the same name is being done."""


class KeyReused(Exception):
    """A write of the same name was done, and it was another one."""
