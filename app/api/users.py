"""Users."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query
from starlette.responses import Response, StreamingResponse

from app.api.answers import MergeResponse, SlatesResponse, UserExport, UserOut, WrittenResponse
from app.api.depends import Here, Write
from app.api.fields import Id
from app.api.parsing import StrictRoute, done_response, json_response
from app.api.problems import created, problems
from app.api.requests import MergeRequest, UserBody, UsersRequest
from app.engine.runtime import Snapshot
from app.services import people
from app.services.erase import erase
from app.services.installation import Installation
from app.storage.evaluations import Judged
from app.storage.records import ExportedInteraction, ExportedReward, StoredUser

router = APIRouter(prefix="/v1/users", tags=["users"], route_class=StrictRoute)


@router.post("", response_model=WrittenResponse, responses=problems(400, 409, 413, 415, 422, 503))
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
    write: Write = None,
) -> Response:
    """Put many users: the whole batch or nothing."""
    return done_response(await people.put(here, {user.user_id: user.attributes for user in body.users}, write))


@router.put(
    "/{user_id}",
    response_model=UserOut,
    responses=created(UserOut) | problems(400, 409, 413, 415, 422, 503),
)
async def put_user(
    here: Here,
    user_id: Id,
    body: Annotated[UserBody, Body(openapi_examples={"a user": {"value": {"attributes": {"age": 34, "gender": "F"}}}})],
) -> Response:
    """Put a user; attributes replace those there were, interactions stay."""
    done = await people.put(here, {user_id: body.attributes})
    return json_response(await _user_out(here, user_id), 201 if done.result.created else 200)


@router.get("/{user_id}", response_model=UserOut, responses=problems(404, 422, 503))
async def get_user(here: Here, user_id: Id) -> Response:
    """A user and what they did last."""
    return json_response(await _user_out(here, user_id))


@router.get("/{user_id}/slates", response_model=SlatesResponse, responses=problems(404, 422, 503))
async def get_slates(
    here: Here,
    user_id: Id,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """What a user was shown, why, and what came of it."""
    found, following = await people.slates(here, user_id, limit, cursor)
    now = await here.fresh()
    names = {stored.key: name for name, stored in here.domains.items()}
    listed = [_slate_out(now, names[judged.slate.domain_key], judged) for judged in found]
    return json_response({"slates": listed, "next_cursor": following})


@router.get("/{user_id}/export", response_model=UserExport, responses=problems(404, 422, 503))
async def export_user(here: Here, user_id: Id) -> Response:
    """Everything that is stored about a user, as one document. It is sent while it is read, however long it is."""
    user = await people.known(here, user_id)
    return StreamingResponse(_exported(here, user), media_type="application/json")


@router.post(
    "/{user_id}/merge",
    response_model=MergeResponse,
    responses=problems(400, 404, 409, 413, 415, 422, 503),
)
async def merge_users(
    here: Here,
    user_id: Id,
    body: Annotated[MergeRequest, Body(openapi_examples={"a visitor who signs in": {"value": {"from": "visitor-17"}}})],
    write: Write = None,
) -> Response:
    """Take over all that is known of another user, who is gone then; the same again changes nothing."""
    return done_response(await people.merge(here, user_id, body.from_id, write))


@router.delete("/{user_id}", status_code=204, responses=problems(404, 409, 422, 503))
async def delete_user(here: Here, user_id: Id) -> Response:
    """Erase every trace of a user; the id is free again afterwards. What is sent late does not bring them back."""
    await erase(here, user_id)
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


async def _exported(here: Installation, user: StoredUser) -> AsyncIterator[bytes]:
    """The export in pieces. Ends midway, as no document, where the user goes meanwhile."""
    head = {"user_id": user.user_id, "attributes": user.attributes, "revision": user.revision}
    yield orjson.dumps(head)[:-1] + b',"interactions":['
    between = b""
    async for events in people.events(here, user):
        yield between + b",".join(orjson.dumps(_event_out(event)) for event in events)
        between = b","
    yield b'],"slates":['
    between = b""
    async for slates in people.shown(here, user):
        now = await here.fresh()
        names = {stored.key: name for name, stored in here.domains.items()}
        told = [
            _slate_out(now, names[judged.slate.domain_key], judged)
            | {"rewards": [_reward_out(reward) for reward in given]}
            for judged, given in slates
        ]
        yield between + b",".join(orjson.dumps(slate) for slate in told)
        between = b","
    await people.known(here, user.user_id)
    yield b"]}"


def _event_out(event: ExportedInteraction) -> dict[str, Any]:
    told = asdict(event)
    del told["key"], told["user_id"]
    return told


def _reward_out(reward: ExportedReward) -> dict[str, Any]:
    told = asdict(reward)
    del told["slate_id"]
    return told | {"value": told.pop("micros") / 1e6}


def _slate_out(now: Snapshot, domain: str, judged: Judged) -> dict[str, Any]:
    slate, catalogue = judged.slate, now.catalogue
    by_digest = {served.digest: served for served in now.served.values()}
    parts = []
    for part in slate.parts:
        served = by_digest.get(part["digest"])
        known = {"recommender": served and served.recommender.name, "checkpoint": served and served.name}
        parts.append({**part, **known})
    items = []
    for item in slate.items:
        micros = judged.rewards.get(item.item_key)
        items.append(
            {
                "item_id": item.item_id,
                "title": catalogue.items[catalogue.position_of[item.item_key]].title,
                "score": round(item.score, 4),
                "propensity": item.propensity,
                "explored": item.explored,
                "reward": None if micros is None else micros / 1e6,
            }
        )
    return {
        "slate_id": slate.slate_id,
        "domain": domain,
        "created_at": slate.created_at,
        "policy": slate.policy,
        "items": items,
        "parts": parts,
    }
