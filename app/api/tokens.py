"""Tokens of users."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from app.api.answers import TokenOut
from app.api.depends import Here
from app.api.parsing import StrictRoute, json_response
from app.api.problems import problems
from app.api.requests import TokenRequest
from app.security import Caller
from app.services import tokens

router = APIRouter(prefix="/v1", tags=["tokens"], route_class=StrictRoute)


@router.post("/tokens", status_code=201, response_model=TokenOut, responses=problems(400, 413, 415, 422, 503))
async def post_tokens(
    here: Here,
    request: Request,
    body: Annotated[
        TokenRequest,
        Body(openapi_examples={"a quarter of an hour": {"value": {"user_id": "ada", "ttl_seconds": 900}}}),
    ],
) -> Response:
    """Make a token with which a browser acts for one user. It ends by itself, or with the key that made it."""
    caller: Caller = request.state.caller
    keyring = await here.keyring()
    secret = keyring.token_secrets[0] if keyring.token_secrets else await tokens.secret_of(here.database)
    expires_at = tokens.expiry(body.ttl_seconds)
    token = tokens.sign(secret, body.user_id, caller.key_id or "", expires_at)
    return json_response({"token": token, "user_id": body.user_id, "expires_at": expires_at}, 201)
