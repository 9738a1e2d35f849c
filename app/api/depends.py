"""What routes are given: the installation, and things made of bodies."""

from typing import Annotated

from fastapi import Depends, Request

from app.api.requests import Filters
from app.services.deploy import Deployments
from app.services.installation import Installation
from app.services.recommend import Limits


async def _installation(request: Request) -> Installation:
    installation: Installation = request.app.state.installation
    return installation


async def _deployments(request: Request) -> Deployments:
    deployments: Deployments = request.app.state.deployments
    return deployments


Here = Annotated[Installation, Depends(_installation)]
Reloads = Annotated[Deployments, Depends(_deployments)]


def limits_of(filters: Filters) -> Limits:
    """The filters of a body as the services take them."""
    return Limits(
        filters.include_items, filters.exclude_items, filters.exclude_slates, filters.where, filters.exclude_seen
    )
