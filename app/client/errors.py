"""What can go wrong: the service refuses (`Problem`), or there is no answer (`Unreachable`)."""

from typing import Any

import httpx


class WarmstartError(Exception):
    """Any error of the client's."""


class Unreachable(WarmstartError):
    """There is no answer, after all retries. A write may or may not have been stored; with ids it is safe to repeat."""


class Problem(WarmstartError):
    """The service answered with an error; docs/problems.md has the types."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.document = _document(response)
        """All of the answer: members of one problem type only are in here."""
        self.type = str(self.document.get("type", "")).rpartition("/")[2]
        """The name of the problem, such as `validation-error`; empty where the answer is not the service's own."""
        self.title = str(self.document.get("title", response.reason_phrase))
        self.detail: str | None = self.document.get("detail")
        self.errors: list[dict[str, str]] = self.document.get("errors", [])
        """`pointer` and `reason` of each thing that is wrong with the request."""
        self.pointers: list[str] = self.document.get("pointers", [])
        self.request_id = response.headers.get("X-Request-ID")
        """What to look for in the service's log."""
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        told = [f"{self.status} {self.type}: {self.title}" if self.type else f"{self.status} {self.title}"]
        told += [self.detail] if self.detail else []
        told += [f"{error['pointer']}: {error['reason']}" for error in self.errors]
        return "\n".join(told)


class Unauthorized(Problem):
    """401 and 403: no key, or one that may not do this."""


class NotFound(Problem):
    """404: no such domain, item, user, event or slate."""


class Conflict(Problem):
    """409: it contradicts what is there or under way."""


class Invalid(Problem):
    """422: understood, but it cannot be accepted; `errors` says why."""


class Unavailable(Problem):
    """429, 502, 503 and 504, after all retries."""


_KINDS: dict[int, type[Problem]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_of(response: httpx.Response) -> Problem:
    """The exception for an answer that is an error."""
    return _KINDS.get(response.status_code, Problem)(response)


def _document(response: httpx.Response) -> dict[str, Any]:
    """The problem document; empty where something between here and the service answered in its place."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
