"""What routes are given: the installation, and things made of bodies."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request

from app.api.requests import ColdStartRequest, RecommendationRequest
from app.errors import invalid
from app.security import Caller
from app.services import once
from app.services.deploy import Deployments
from app.services.installation import Installation
from app.services.recommend import Limits, Wish
from app.storage.records import NamedWrite

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
"""Visible ASCII, which all that carry a header let through unchanged."""


async def _installation(request: Request) -> Installation:
    installation: Installation = request.app.state.installation
    return installation


async def _deployments(request: Request) -> Deployments:
    deployments: Deployments = request.app.state.deployments
    return deployments


def caller_of(request: Request) -> str:
    """Who sent the request, for what is kept by caller; nobody in particular where nobody has to say."""
    caller: Caller = request.state.caller
    return caller.name


async def named_write(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Your name for this request, 1 to 255 visible ASCII characters. "
            "Sent again with the same body, it is answered the same and stored once.",
        ),
    ] = None,
) -> NamedWrite | None:
    """The write that the request is, by the key its caller gave it. Raises Problem (validation-error)."""
    if idempotency_key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
    sent = f"{request.method} {request.scope['path']}\n".encode() + await request.body()
    return once.named(request.app.state.installation, caller_of(request), idempotency_key, sent)


Here = Annotated[Installation, Depends(_installation)]
Write = Annotated[NamedWrite | None, Depends(named_write)]
Reloads = Annotated[Deployments, Depends(_deployments)]


def wish_of(body: RecommendationRequest | ColdStartRequest) -> Wish:
    """The list that a body asks for, as the services take it."""
    f = body.filters
    limits = Limits(f.include_items, f.exclude_items, f.exclude_slates, f.where, f.exclude_seen)
    return Wish(body.k, limits, body.exploration, body.rank_by, body.explain, allow_fallback=body.allow_fallback)
