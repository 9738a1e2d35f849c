"""Users."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.responses import Response

from app.api.answers import UserOut, WrittenResponse
from app.api.depends import Here
from app.api.fields import Id
from app.api.parsing import StrictRoute, json_response
from app.api.problems import created, problems
from app.api.requests import UserBody, UsersRequest
from app.services import people
from app.services.installation import Installation

router = APIRouter(prefix="/v1/users", tags=["users"], route_class=StrictRoute)


@router.post("", response_model=WrittenResponse, responses=problems(400, 413, 415, 422, 503))
async def post_users(
    here: Here,
    body: Annotated[
        UsersRequest,
        Body(
            openapi_examples={
                "two users": {"value": {"users": [{"user_id": "ada", "attributes": {"age": 34}}, {"user_id": "grace"}]}}
            }
        ),
    ],
) -> Response:
    """Put many users: the whole batch or nothing."""
    written = await people.put(here, {user.user_id: user.attributes for user in body.users})
    return json_response({"created": written.created, "updated": written.updated})


@router.put(
    "/{user_id}",
    response_model=UserOut,
    responses=created(UserOut) | problems(400, 413, 415, 422, 503),
)
async def put_user(
    here: Here,
    user_id: Id,
    body: Annotated[UserBody, Body(openapi_examples={"a user": {"value": {"attributes": {"age": 34, "gender": "F"}}}})],
) -> Response:
    """Put a user; attributes replace those there were, interactions stay."""
    written = await people.put(here, {user_id: body.attributes})
    return json_response(await _user_out(here, user_id), 201 if written.created else 200)


@router.get("/{user_id}", response_model=UserOut, responses=problems(404, 422, 503))
async def get_user(here: Here, user_id: Id) -> Response:
    """A user and what they did last."""
    return json_response(await _user_out(here, user_id))


@router.delete("/{user_id}", status_code=204, responses=problems(404, 422, 503))
async def delete_user(here: Here, user_id: Id) -> Response:
    """Erase a user: attributes, interactions and slates."""
    await people.erase(here, user_id)
    return Response(status_code=204)


async def _user_out(here: Installation, user_id: str) -> dict[str, Any]:
    user, events = await people.get(here, user_id)
    catalogue = (await here.fresh()).catalogue
    interactions = []
    for event in events:
        item = catalogue.items[catalogue.position_of[event.item_key]]
        interactions.append(
            {
                "domain": item.domain,
                "item_id": item.item_id,
                "kind": event.kind,
                "value": event.value,
                "occurred_at": event.occurred_at,
            }
        )
    return {
        "user_id": user.user_id,
        "attributes": user.attributes,
        "revision": user.revision,
        "interactions": interactions,
    }
