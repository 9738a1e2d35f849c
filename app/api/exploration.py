"""How domains explore, and what their policies have seen."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from app.api.answers import ArmsResponse, ExplorationSettingsOut
from app.api.depends import Here
from app.api.fields import Id
from app.api.parsing import StrictRoute, json_response
from app.api.problems import problems
from app.api.requests import ExplorationRequest
from app.services import exploration
from app.services.exploration import DomainExploration
from app.services.reward import list_arms

router = APIRouter(prefix="/v1/admin", tags=["admin"], route_class=StrictRoute)


@router.get("/exploration", response_model=list[ExplorationSettingsOut], responses=problems(503))
async def get_exploration(here: Here) -> Response:
    """How each domain explores where a request does not say."""
    await here.fresh()
    return json_response([_told(name, here.policies.of(name)) for name in here.domains])


@router.put("/exploration", response_model=ExplorationSettingsOut, responses=problems(400, 413, 415, 422, 503))
async def put_exploration(
    here: Here,
    body: Annotated[
        ExplorationRequest,
        Body(
            openapi_examples={
                "one place in ten at random": {
                    "value": {"domain": "movies", "exploration": {"policy": "epsilon_greedy", "epsilon": 0.1}}
                },
                "Thompson sampling, no click in ten minutes is a 0": {
                    "value": {
                        "domain": "movies",
                        "exploration": {"policy": "thompson", "samples": 100},
                        "reward_wait_seconds": 600,
                    }
                },
            }
        ),
    ],
) -> Response:
    """Say how a domain explores. Every worker does from its next request on."""
    wanted = DomainExploration(
        exploration=body.exploration,
        reward_wait_seconds=body.reward_wait_seconds,
        default_reward=body.default_reward,
    )
    await exploration.put(here, body.domain, wanted)
    return json_response(_told(body.domain, wanted))


@router.get("/arms", response_model=ArmsResponse, responses=problems(422, 503))
async def get_arms(
    here: Here,
    domain: Annotated[Id, Query(examples=["movies"])],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """What each policy showed of each item, and what came of it."""
    found, following = await list_arms(here, domain, limit, cursor)
    listed = [
        {
            "item_id": arm.item_id,
            "policy": arm.policy,
            "shows": arm.counts.shows,
            "judged": arm.counts.judged,
            "reward": arm.counts.micros / 1e6,
        }
        for arm in found
    ]
    return json_response({"arms": listed, "next_cursor": following})


def _told(domain: str, settings: DomainExploration) -> dict[str, Any]:
    return {
        "domain": domain,
        "exploration": settings.exploration.parameters(),
        "reward_wait_seconds": settings.reward_wait_seconds,
        "default_reward": settings.default_reward,
    }
