"""Recommendations and predictions."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from app.api.answers import PredictionResponse, QuestionsResponse, RecommendationResponse
from app.api.depends import Here, wish_of
from app.api.fields import Id
from app.api.parsing import StrictRoute, json_response
from app.api.problems import problems
from app.api.requests import (
    MAX_K,
    ColdStartRequest,
    PredictionRequest,
    QuestionsRequest,
    RecommendationRequest,
)
from app.services.questions import ask
from app.services.recommend import RankBy, Who, Wish, predict, recommend

router = APIRouter(prefix="/v1", tags=["recommendations"], route_class=StrictRoute)

_SUPPORT = [{"item_id": "89", "value": 5}, {"item_id": "127", "value": 4}, {"item_id": "1", "value": 2}]


@router.post("/recommendations", response_model=RecommendationResponse, responses=problems(400, 413, 415, 422, 503))
async def post_recommendations(
    here: Here,
    body: Annotated[
        RecommendationRequest,
        Body(
            openapi_examples={
                "a known user": {"value": {"domain": "movies", "user_id": "ada", "k": 5}},
                "evidence in the request": {
                    "value": {"domain": "movies", "user": {"attributes": {"age": 34}, "support": _SUPPORT}, "k": 5}
                },
                "the next page": {
                    "value": {"domain": "movies", "user_id": "ada", "filters": {"exclude_slates": ["0192f4c1a3b4"]}}
                },
            }
        ),
    ],
) -> Response:
    """The best k items for a stored user, or for the evidence given in the request."""
    if body.user is None:
        who = Who(user_id=body.user_id)
    else:
        who = Who(None, body.user.attributes, body.user.support, "/user/support")
    return json_response(await recommend(here, body.domain, who, wish_of(body)))


@router.get(
    "/users/{user_id}/recommendations",
    response_model=RecommendationResponse,
    responses=problems(422, 503),
)
async def get_recommendations(
    here: Here,
    user_id: Id,
    domain: Annotated[Id, Query(examples=["movies"])],
    k: Annotated[int, Query(ge=1, le=MAX_K)] = 10,
    rank_by: RankBy = "preference",
    explain: bool = False,
    allow_fallback: bool = True,
) -> Response:
    """The best k items for a stored user; somebody nobody has met is a newcomer, not an error."""
    who = Who(user_id=user_id)
    wish = Wish(k, rank_by=rank_by, explain=explain, allow_fallback=allow_fallback)
    return json_response(await recommend(here, domain, who, wish, domain_pointer="?domain"))


@router.post(
    "/cold-start/recommendations",
    response_model=RecommendationResponse,
    responses=problems(400, 413, 415, 422, 503),
)
async def post_cold_start(
    here: Here,
    body: Annotated[
        ColdStartRequest,
        Body(
            openapi_examples={
                "a few ratings": {"value": {"domain": "movies", "support": _SUPPORT, "k": 5}},
                "attributes alone": {
                    "value": {"domain": "movies", "attributes": {"age": 21, "gender": "F", "occupation": "student"}}
                },
            }
        ),
    ],
) -> Response:
    """The best k items for somebody who is not stored. The slate is logged, the evidence is not."""
    who = Who(None, body.attributes, body.support)
    return json_response(await recommend(here, body.domain, who, wish_of(body)))


@router.post(
    "/cold-start/questions",
    response_model=QuestionsResponse,
    responses=problems(400, 413, 415, 422, 503),
)
async def post_questions(
    here: Here,
    body: Annotated[
        QuestionsRequest,
        Body(
            openapi_examples={
                "the first questions": {"value": {"domain": "movies", "n": 3}},
                "the next one": {"value": {"domain": "movies", "support": _SUPPORT, "skipped": ["50"]}},
            }
        ),
    ],
) -> Response:
    """The items whose ratings would tell most about somebody who is not stored. Nothing is logged."""
    return json_response(await ask(here, body.domain, body.attributes, body.support, body.skipped, body.n))


@router.post("/predictions", response_model=PredictionResponse, responses=problems(400, 404, 413, 415, 422, 503))
async def post_predictions(
    here: Here,
    body: Annotated[
        PredictionRequest,
        Body(
            openapi_examples={
                "ratings to expect": {
                    "value": {"domain": "movies", "user": {"support": _SUPPORT}, "items": ["50", "181"]}
                }
            }
        ),
    ],
) -> Response:
    """The rating to expect of each item, with its standard deviation."""
    if body.user is None:
        who = Who(user_id=body.user_id)
    else:
        who = Who(None, body.user.attributes, body.user.support, "/user/support")
    return json_response(await predict(here, body.domain, who, body.items, body.allow_fallback))
