"""Checkpoints: list, reload, roll back."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from app.api.answers import CheckpointOut, DeploymentOut
from app.api.depends import Here, Reloads
from app.api.parsing import StrictRoute, json_response
from app.api.problems import problems
from app.api.requests import ReloadRequest, RollbackRequest
from app.services.deploy import list_checkpoints, usual_role

router = APIRouter(prefix="/v1/admin", tags=["admin"], route_class=StrictRoute)


@router.get("/checkpoints", response_model=list[CheckpointOut], responses=problems(503))
async def get_checkpoints(here: Here) -> Response:
    """Every checkpoint on disk: what it is, how well it did on validation, where it is in service."""
    now = await here.fresh()
    listed = await asyncio.to_thread(list_checkpoints, here.settings.checkpoints)
    return json_response(
        [
            {
                "checkpoint": entry.name,
                "digest": entry.digest,
                "recommender": entry.card and entry.card.recommender,
                "role": entry.card and usual_role(entry.card),
                "domains": [spec.name for spec in entry.card.schema_.domains] if entry.card else [],
                "metrics": entry.card.metrics if entry.card else {},
                "created": entry.card and entry.card.created.isoformat(),
                "serving": [
                    {"domain": domain, "role": role}
                    for (domain, role), name in sorted(now.deployed.items())
                    if name == entry.name
                ],
                "problem": entry.problem,
            }
            for entry in listed
        ]
    )


@router.post("/checkpoints/reload", response_model=DeploymentOut, responses=problems(400, 409, 413, 415, 422, 503))
async def post_reload(
    reloads: Reloads,
    body: Annotated[
        ReloadRequest,
        Body(
            openapi_examples={
                "a new bayes": {"value": {"domain": "movies", "checkpoint": "movies-bayes-20260101-1a2b3c4d"}}
            }
        ),
    ],
) -> Response:
    """Take a checkpoint into service on every worker. The old one answers until the new one is ready."""
    return json_response(asdict(await reloads.reload(body.domain, body.checkpoint, body.role)))


@router.post("/checkpoints/rollback", response_model=DeploymentOut, responses=problems(400, 409, 413, 415, 422, 503))
async def post_rollback(
    reloads: Reloads,
    body: Annotated[
        RollbackRequest,
        Body(openapi_examples={"back": {"value": {"domain": "movies", "role": "collaborative"}}}),
    ],
) -> Response:
    """Put back the checkpoint that was in service before."""
    return json_response(asdict(await reloads.rollback(body.domain, body.role)))
