"""What routes are given: the installation, and things made of bodies."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.requests import ColdStartRequest, RecommendationRequest
from app.services.deploy import Deployments
from app.services.installation import Installation
from app.services.recommend import Limits, Wish


async def _installation(request: Request) -> Installation:
    installation: Installation = request.app.state.installation
    return installation


async def _deployments(request: Request) -> Deployments:
    deployments: Deployments = request.app.state.deployments
    return deployments


Here = Annotated[Installation, Depends(_installation)]
Reloads = Annotated[Deployments, Depends(_deployments)]


def wish_of(body: RecommendationRequest | ColdStartRequest) -> Wish:
    """The list that a body asks for, as the services take it."""
    f = body.filters
    limits = Limits(f.include_items, f.exclude_items, f.exclude_slates, f.where, f.exclude_seen)
    return Wish(body.k, limits, body.exploration, body.rank_by, body.explain)
