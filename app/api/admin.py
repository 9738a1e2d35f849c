"""Checkpoints: list, reload, roll back."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from app.api.admin_answers import AuditResponse, CheckpointOut, DeploymentOut, EvaluationResponse
from app.api.depends import Here, Reloads
from app.api.parsing import StrictRoute, json_response
from app.api.problems import problems
from app.api.requests import EvaluationRequest, ReloadRequest, RollbackRequest, ScopeBody
from app.services import audit
from app.services.deploy import list_checkpoints, usual_role
from app.services.evaluation import Gate, Scope

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
                "trials": [
                    trial.told()
                    for trial in here.shadows.trials
                    if (trial.candidate.name, trial.candidate.digest) == (entry.name, entry.digest)
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
                "a new bayes": {"value": {"domain": "movies", "checkpoint": "movies-bayes-20260101-1a2b3c4d"}},
                "only if it earns no less": {
                    "value": {
                        "domain": "movies",
                        "checkpoint": "movies-bayes-20260101-1a2b3c4d",
                        "gate": {"confidence": 0.95, "effective_samples": 200},
                    }
                },
            }
        ),
    ],
) -> Response:
    """Take a checkpoint into service on every worker. The old one answers until the new one is ready.

    With `shadow` it is put on trial at this worker only: see `trials` of `GET /v1/admin/checkpoints`."""
    if body.shadow:
        return json_response(asdict(await reloads.try_out(body.domain, body.checkpoint, body.role)))
    gate = None if body.gate is None else Gate(_scope(body.gate), body.gate.margin, body.gate.effective_samples)
    return json_response(asdict(await reloads.reload(body.domain, body.checkpoint, body.role, gate)))


@router.post("/checkpoints/rollback", response_model=DeploymentOut, responses=problems(400, 409, 413, 415, 422, 503))
async def post_rollback(
    reloads: Reloads,
    body: Annotated[
        RollbackRequest,
        Body(openapi_examples={"back": {"value": {"domain": "movies", "role": "collaborative"}}}),
    ],
) -> Response:
    """Put back the checkpoint that was in service before; with `shadow` end a trial."""
    if body.shadow:
        return json_response(asdict(reloads.end_trial(body.domain, body.role)))
    return json_response(asdict(await reloads.rollback(body.domain, body.role)))


@router.post("/evaluations", response_model=EvaluationResponse, responses=problems(400, 413, 415, 422, 503))
async def post_evaluations(
    reloads: Reloads,
    body: Annotated[
        EvaluationRequest,
        Body(
            openapi_examples={
                "what is in service": {"value": {"domain": "movies"}},
                "a checkpoint beside it": {
                    "value": {"domain": "movies", "checkpoint": "movies-bayes-20260101-1a2b3c4d", "places": 3}
                },
            }
        ),
    ],
) -> Response:
    """What a domain earns by the log of its own slates, and what it would with another checkpoint."""
    verdict = await reloads.evaluate(body.domain, _scope(body), body.checkpoint, body.role)
    return json_response({"domain": body.domain, **verdict.told()})


@router.get("/audit", response_model=AuditResponse, responses=problems(422, 503))
async def get_audit(
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=2**62)] = None,
    reads: bool = True,
) -> Response:
    """What was asked of admin routes, refused or not, and on the command line; newest first. This call is in it.

    Without `reads` those are left out that were answered."""
    found, following = await audit.page(here, limit, cursor, reads)
    acts = [
        {
            "at": act.at,
            "key_id": act.key_id,
            "method": act.method,
            "route": act.route,
            "request_id": act.request_id,
            "status": act.status,
            "problem": act.problem,
        }
        for act in found
    ]
    return json_response({"acts": acts, "next_cursor": None if following is None else str(following)})


def _scope(body: ScopeBody) -> Scope:
    return Scope(body.slates, body.places, body.epsilon, body.confidence)
