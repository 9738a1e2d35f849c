"""Domains and items."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from app.api.answers import DomainOut, ItemOut, ItemsResponse, SimilarItem, WrittenResponse
from app.api.depends import Here, Write
from app.api.fields import Id
from app.api.parsing import StrictRoute, done_response, json_response
from app.api.problems import created, problems
from app.api.requests import DomainBody, ItemBody, ItemsRequest
from app.services import stock
from app.services.installation import Installation
from app.storage.records import NewDomain, NewItem, StoredItem
from models.datasets.schema import Kind

router = APIRouter(prefix="/v1", tags=["catalogue"], route_class=StrictRoute)


@router.get("/domains", response_model=list[DomainOut])
async def get_domains(here: Here) -> Response:
    """Every domain, its rating scale, and which recommenders serve it."""
    known = await stock.known_domains(here)
    return json_response([_domain_out(here, name) for name in sorted(known)])


@router.put(
    "/domains/{domain}",
    response_model=DomainOut,
    responses=created(DomainOut) | problems(400, 413, 415, 422, 503),
)
async def put_domain(
    here: Here,
    domain: Id,
    body: Annotated[
        DomainBody,
        Body(
            openapi_examples={
                "books": {
                    "value": {
                        "title": "Books",
                        "rating_min": 1,
                        "rating_max": 10,
                        "kinds": {"click": {"value": 7, "weight": 0.2, "reward": 0.3}},
                        "item_attributes": {"author": "categorical", "year": "numeric"},
                    }
                }
            }
        ),
    ],
) -> Response:
    """Declare a domain, or change it. It answers from content and live counts until a checkpoint is deployed."""
    kinds = {name: Kind(value=k.value, weight=k.weight, reward=k.reward) for name, k in body.kinds.items()}
    declared = NewDomain(domain, body.rating_min, body.rating_max, kinds, body.item_attributes, body.title)
    created = await stock.put_domain(here, declared)
    await here.fresh()
    return json_response(_domain_out(here, domain), 201 if created else 200)


@router.post("/items", response_model=WrittenResponse, responses=problems(400, 409, 413, 415, 422, 503))
async def post_items(
    here: Here,
    body: Annotated[
        ItemsRequest,
        Body(
            openapi_examples={
                "two books": {
                    "value": {
                        "items": [
                            {
                                "domain": "books",
                                "item_id": "emma",
                                "title": "Emma",
                                "attributes": {"author": "Jane Austen", "year": 1815},
                            },
                            {"domain": "books", "item_id": "walden", "title": "Walden"},
                        ]
                    }
                }
            }
        ),
    ],
    write: Write = None,
) -> Response:
    """Put many items: the whole batch or nothing. They can be recommended at once."""
    items = [(i.domain, NewItem(i.item_id, i.title or None, i.attributes, i.available)) for i in body.items]
    return done_response(await stock.put_items(here, items, write))


@router.get("/items/{domain}", response_model=ItemsResponse, responses=problems(404, 422, 503))
async def get_items(
    here: Here,
    domain: Id,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """A page of a domain's items, in the order in which they came."""
    items, following = await stock.list_items(here, domain, limit, cursor)
    return json_response(
        {
            "items": [_item_out(domain, item) for item in items],
            "next_cursor": None if following is None else str(following),
        }
    )


@router.put(
    "/items/{domain}/{item_id}",
    response_model=ItemOut,
    responses=created(ItemOut) | problems(400, 404, 413, 415, 422, 503),
)
async def put_item(
    here: Here,
    domain: Id,
    item_id: Id,
    body: Annotated[
        ItemBody,
        Body(
            openapi_examples={
                "a film": {
                    "value": {"title": "Solaris (1972)", "attributes": {"year": 1972, "genres": ["Drama", "Sci-Fi"]}}
                }
            }
        ),
    ],
) -> Response:
    """Put an item; what was known of it is replaced. It can be recommended at once, by every worker."""
    new = NewItem(item_id, body.title or None, body.attributes, body.available)
    created = await stock.put_item(here, domain, new)
    return json_response(_item_out(domain, await stock.get_item(here, domain, item_id)), 201 if created else 200)


@router.get("/items/{domain}/{item_id}", response_model=ItemOut, responses=problems(404, 422, 503))
async def get_item(here: Here, domain: Id, item_id: Id) -> Response:
    """An item."""
    return json_response(_item_out(domain, await stock.get_item(here, domain, item_id)))


@router.delete("/items/{domain}/{item_id}", status_code=204, responses=problems(404, 422, 503))
async def delete_item(here: Here, domain: Id, item_id: Id) -> Response:
    """Delete an item. What users did with it still counts as evidence about them."""
    await stock.delete_item(here, domain, item_id)
    return Response(status_code=204)


@router.get("/items/{domain}/{item_id}/similar", response_model=list[SimilarItem], responses=problems(404, 422, 503))
async def get_similar(here: Here, domain: Id, item_id: Id, k: Annotated[int, Query(ge=1, le=100)] = 10) -> Response:
    """Items with the most similar content."""
    return json_response(await stock.similar(here, domain, item_id, k))


def _item_out(domain: str, item: StoredItem) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "domain": domain,
        "title": item.title or item.item_id,
        "attributes": item.attributes,
        "available": item.available,
    }


def _domain_out(here: Installation, name: str) -> dict[str, Any]:
    stored = here.domains[name]
    served = here.runtime.now.domains.get(name)
    parts = [] if served is None or served.fallback else served.parts
    return {
        "domain": name,
        "title": stored.title,
        "rating_min": stored.rating_min,
        "rating_max": stored.rating_max,
        "kinds": {kind: worth.model_dump() for kind, worth in stored.kinds.items()},
        "item_attributes": dict(stored.attributes),
        "items": len(served.shelf.local_of) if served else 0,
        "parts": [
            {"role": p.role, "recommender": p.served.recommender.name, "checkpoint": p.served.name} for p in parts
        ],
    }
