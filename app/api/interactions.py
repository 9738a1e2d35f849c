"""Interactions: what users did."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from app.api.answers import IngestResponse
from app.api.depends import Here, Write
from app.api.fields import Id
from app.api.parsing import StrictRoute, done_response
from app.api.problems import problems
from app.api.requests import InteractionsRequest
from app.security import Caller
from app.services.ingest import ingest, withdraw

router = APIRouter(prefix="/v1", tags=["interactions"], route_class=StrictRoute)


@router.post(
    "/interactions",
    status_code=201,
    response_model=IngestResponse,
    responses=problems(400, 409, 413, 415, 422, 503)
    | {200: {"model": IngestResponse, "description": "All were stored before."}},
)
async def post_interactions(
    here: Here,
    body: Annotated[
        InteractionsRequest,
        Body(
            openapi_examples={
                "a rating and a click": {
                    "value": {
                        "interactions": [
                            {"event_id": "e-1", "user_id": "ada", "domain": "movies", "item_id": "50", "value": 5},
                            {"event_id": "e-2", "user_id": "ada", "domain": "movies", "item_id": "9", "kind": "click"},
                        ]
                    }
                }
            }
        ),
    ],
    write: Write = None,
) -> Response:
    """Store events: the whole batch or nothing, committed before the answer. Unknown users and items are created."""
    done = await ingest(here, body.interactions, write)
    return done_response(done, 201 if done.result.accepted else 200)


@router.delete("/interactions/{event_id}", status_code=204, responses=problems(404, 422, 503))
async def delete_interaction(here: Here, request: Request, event_id: Id) -> Response:
    """Take an event back: un-rate."""
    caller: Caller = request.state.caller
    await withdraw(here, event_id, caller.user_id)
    return Response(status_code=204)
