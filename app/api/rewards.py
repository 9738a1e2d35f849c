"""Rewards: what came of shown items."""

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from app.api.answers import IngestResponse
from app.api.depends import Here, Write
from app.api.parsing import StrictRoute, done_response
from app.api.problems import problems
from app.api.requests import RewardsRequest
from app.services.reward import Posted, reward

router = APIRouter(prefix="/v1", tags=["rewards"], route_class=StrictRoute)


@router.post(
    "/rewards",
    status_code=201,
    response_model=IngestResponse,
    responses=problems(400, 404, 409, 413, 415, 422, 503)
    | {200: {"model": IngestResponse, "description": "All were stored before."}},
)
async def post_rewards(
    here: Here,
    body: Annotated[
        RewardsRequest,
        Body(
            openapi_examples={
                "a click": {
                    "value": {
                        "rewards": [
                            {
                                "event_id": "r-1",
                                "slate_id": "018bcfe5-6800-7000-8000-000000000000",
                                "item_id": "50",
                                "value": 1,
                            }
                        ]
                    }
                }
            }
        ),
    ],
    write: Write = None,
) -> Response:
    """Store rewards of shown items: the whole batch or nothing, committed and counted before the answer."""
    done = await reward(here, [Posted(r.slate_id, r.item_id, r.value, r.event_id) for r in body.rewards], write)
    return done_response(done, 201 if done.result.accepted else 200)
