"""Domains and items: what the catalogue holds, and what is like what."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.errors import Problem, invalid
from app.services import once
from app.services.installation import Installation
from app.services.once import Done, Work
from app.storage import catalogue, domains
from app.storage.database import Connection
from app.storage.records import NamedWrite, NewDomain, NewItem, StoredDomain, StoredItem, Written
from models.datasets.images import PictureError, content_of, thumbnail
from models.datasets.schema import AttributeKind

MAX_PIXELS = 4_000_000
"""Of a picture of an item: a small file can unpack to a large one."""
MAX_TEXT = 20_000
"""Characters of an attribute that is no picture."""


async def put_domain(installation: Installation, domain: NewDomain) -> bool:
    """Declare a domain or change it; True where it is new.

    Raises Problem (validation-error) for another rating scale where there are interactions already.
    """

    async def work(connection: Connection) -> bool:
        return await domains.put(connection, domain, time.time())

    old = (await known_domains(installation)).get(domain.name)
    scale = (domain.rating_min, domain.rating_max)
    if old is not None and (old.rating_min, old.rating_max) != scale:
        async with installation.database.read() as connection:
            if await catalogue.is_touched(connection, old.key):
                raise invalid("/rating_min", "the scale of a domain with interactions cannot be changed")
    return await installation.database.transact(work)


async def known_domains(installation: Installation) -> Mapping[str, StoredDomain]:
    """All domains by name."""
    await installation.fresh()
    return installation.domains


async def put_items(
    installation: Installation, items: Sequence[tuple[str, NewItem]], write: NamedWrite | None = None
) -> Done[Written]:
    """Put items, (domain, item) each, whole or not at all.

    Raises Problem (validation-error) naming the row, and what `once.transact` raises.
    """

    async def prepare() -> Work[Written]:
        known = await known_domains(installation)
        for row, (name, _) in enumerate(items):
            if name not in known:
                raise invalid(f"/items/{row}/domain", "no domain has that name")
        by_key: dict[int, list[NewItem]] = {}
        for row, (name, item) in enumerate(items):
            checked = await _checked(known[name], item, f"/items/{row}")
            by_key.setdefault(known[name].key, []).append(checked)

        async def work(connection: Connection) -> Written:
            done = [await catalogue.put_items(connection, key, batch) for key, batch in sorted(by_key.items())]
            return Written(sum(d.created for d in done), sum(d.updated for d in done))

        return work

    return await once.transact(installation, write, prepare, Written)


async def put_item(installation: Installation, domain: str, item: NewItem) -> bool:
    """Put one item; True where it is new. Raises Problem (not-found) for an unknown domain."""
    stored = await _domain(installation, domain)
    checked = await _checked(stored, item, "")

    async def work(connection: Connection) -> Written:
        return await catalogue.put_items(connection, stored.key, [checked])

    return (await installation.database.transact(work)).created > 0


async def get_item(installation: Installation, domain: str, item_id: str) -> StoredItem:
    """An item. Raises Problem (not-found)."""
    stored = await _domain(installation, domain)
    async with installation.database.read() as connection:
        item = await catalogue.get_item(connection, stored.key, item_id)
    if item is None:
        raise Problem("not-found", "No item here has that id.")
    return item


async def delete_item(installation: Installation, domain: str, item_id: str) -> None:
    """Delete an item: it is no longer shown or recommended. Raises Problem (not-found)."""
    stored = await _domain(installation, domain)

    async def work(connection: Connection) -> bool:
        return await catalogue.delete_item(connection, stored.key, item_id)

    if not await installation.database.transact(work):
        raise Problem("not-found", "No item here has that id.")


async def list_items(
    installation: Installation, domain: str, limit: int, cursor: int | None
) -> tuple[Sequence[StoredItem], int | None]:
    """(a page of items in the order in which they came, the next cursor). Raises Problem (not-found)."""
    stored = await _domain(installation, domain)
    async with installation.database.read() as connection:
        return await catalogue.list_items(connection, stored.key, limit, cursor)


async def similar(installation: Installation, domain: str, item_id: str, k: int) -> list[dict[str, Any]]:
    """The k available items whose content is most like an item's, by cosine. Raises Problem (not-found)."""
    snapshot = await installation.fresh()
    if domain not in snapshot.domains:
        raise Problem("not-found", "No domain has that name.")
    served = snapshot.domains[domain]
    items = served.shelf.items
    local = served.shelf.local_of.get(item_id)
    if local is None:
        raise Problem("not-found", "No item here has that id.")
    # In a thread: the first time since the catalogue has changed takes long.
    alike = await asyncio.to_thread(served.most_alike, local, k)
    return [
        {"item_id": items[i].item_id, "title": items[i].title, "similarity": round(likeness, 4)}
        for i, likeness in alike
    ]


async def _domain(installation: Installation, name: str) -> StoredDomain:
    stored = (await known_domains(installation)).get(name)
    if stored is None:
        raise Problem("not-found", "No domain has that name.")
    return stored


_FITS: Mapping[AttributeKind, tuple[type, ...]] = {
    "numeric": (int, float),
    "categorical": (str,),
    "text": (str,),
    "multi": (list, tuple),
    "image": (str,),
}


async def _checked(domain: StoredDomain, item: NewItem, pointer: str) -> NewItem:
    """The item with thumbnails for its pictures. Raises Problem (validation-error).

    Declared attributes must have the declared kind; undeclared ones are kept and not read.
    """
    thumbnails: dict[str, str] = {}
    for name, value in item.attributes.items():
        kind = domain.attributes.get(name)
        if kind is not None and value is not None and not isinstance(value, _FITS[kind]):
            raise invalid(f"{pointer}/attributes/{name}", f"must be {kind}")
        if kind == "image" and value is not None:
            try:
                # Decoding is work for a thread: a large picture takes as long as many answers.
                thumbnails[name] = await asyncio.to_thread(_thumbnail, value)
            except PictureError as error:
                raise invalid(f"{pointer}/attributes/{name}", str(error)) from error
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            raise invalid(
                f"{pointer}/attributes", f"a string of over {MAX_TEXT:,} characters must be an attribute declared image"
            )
    return replace(item, attributes={**item.attributes, **thumbnails}) if thumbnails else item


def _thumbnail(uri: str) -> str:
    return thumbnail(content_of(uri), MAX_PIXELS)
