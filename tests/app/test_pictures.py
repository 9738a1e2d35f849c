"""Pictures of items over HTTP: kept as thumbnails, or refused."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from app.services.exchange import export
from models.datasets.folder import read
from models.datasets.images import content_of, pixels
from tests.app.conftest import Service, Start


def uri(size: tuple[int, int], kind: str = "png") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


async def gallery(service: Service, shop: str) -> None:
    await service.put(f"/v1/domains/{shop}", {"item_attributes": {"cover": "image"}}, 200)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
async def test_a_picture_is_kept_as_a_thumbnail(service: Service, shop: str, kind: str) -> None:
    await gallery(service, shop)
    put = await service.put(f"/v1/items/{shop}/a", {"attributes": {"cover": uri((400, 600), kind)}})
    assert put == await service.get(f"/v1/items/{shop}/a")
    kept = put["attributes"]["cover"]
    assert content_of(kept)
    assert len(kept) < 1000
    assert pixels([kept])[0, 0].float().mean() > 250
    assert not pixels([kept])[0, 1:].gt(5).any()
    again = await service.put(f"/v1/items/{shop}/a", {"attributes": {"cover": kept}}, 200)
    assert again["attributes"]["cover"] == kept


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("cover.png", "data URI"),
        (3, "must be image"),
        ("data:image/png;base64,AAAA", "damaged"),
        ("data:image/svg+xml;base64,AAAA", "data URI"),
        (uri((3000, 2000)), "4,000,000 pixels"),
    ],
    ids=["a path", "a number", "not a picture", "another kind", "too many pixels"],
)
async def test_a_wrong_picture_is_refused(service: Service, shop: str, value: object, reason: str) -> None:
    """Where it stands, with what it must be; and nothing of its batch is stored."""
    await gallery(service, shop)
    item = {"attributes": {"cover": value}}
    one = await service.put(f"/v1/items/{shop}/a", item, 422)
    rows = [{"domain": shop, "item_id": "b"}, {"domain": shop, "item_id": "a"} | item]
    many = await service.post("/v1/items", {"items": rows}, 422)
    for answer, pointer in ((one, ""), (many, "/items/1")):
        assert answer["type"] == "/problems/validation-error"
        (error,) = answer["errors"]
        assert error["pointer"] == f"{pointer}/attributes/cover"
        assert reason in error["reason"]
    assert (await service.get(f"/v1/items/{shop}"))["items"] == []


async def test_a_long_string_is_only_ever_a_picture(service: Service, shop: str, user: str) -> None:
    """Of an attribute that is declared one; and people have none."""
    noise = base64.b64encode(bytes(range(256)) * 80).decode()
    long = {"attributes": {"cover": "data:image/png;base64," + noise}}
    answer = await service.put(f"/v1/items/{shop}/a", long, 422)
    assert answer["errors"][0]["pointer"] == "/attributes"
    await service.put(f"/v1/users/{user}", long, 422)


async def test_a_picture_without_a_checkpoint_that_reads_it_harms_nothing(service: Service, shop: str) -> None:
    await gallery(service, shop)
    await service.put(f"/v1/items/{shop}/a", {"attributes": {"cover": uri((40, 40)), "genres": ["x"]}})
    await service.put(f"/v1/items/{shop}/b", {"attributes": {"cover": uri((40, 40))}})
    answer = await service.post("/v1/cold-start/recommendations", {"domain": shop})
    assert {item["item_id"] for item in answer["items"]} == {"a", "b"}
    await service.get(f"/v1/items/{shop}/a/similar")


async def test_an_export_keeps_pictures(start: Start, tmp_path: Path) -> None:
    async with start() as own:
        await own.put("/v1/domains/gallery", {"item_attributes": {"cover": "image"}})
        put = await own.put("/v1/items/gallery/a", {"attributes": {"cover": uri((40, 40))}})
        await own.rate("ann", {"a": 5}, "gallery")
        await export(own.installation.database, tmp_path / "out")
    items = read(tmp_path / "out").items
    assert put["attributes"]["cover"] in [row.get("cover") for row in items.attributes]
    assert items.content.images is not None
    assert items.content.images.any()
