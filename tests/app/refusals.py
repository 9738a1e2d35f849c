"""What all refusals have in common."""

from typing import Any

import httpx

from app.errors import PROBLEMS

ECHO = "canary"
"""Stands in every bad request where it can, and must stand in no answer."""
JSON = {"content-type": "application/json"}


def refused(response: httpx.Response, slug: str) -> dict[str, Any]:
    """The problem that the answer is, after checking everything that all of them have in common."""
    assert response.status_code == PROBLEMS[slug].status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/problems/{slug}"
    assert problem["title"] == PROBLEMS[slug].title
    assert problem["status"] == response.status_code
    assert ECHO not in response.text
    assert ECHO not in str(response.headers)
    return problem
