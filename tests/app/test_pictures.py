"""Pictures of items over HTTP: kept as thumbnails, or refused."""

import base64
import io
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.services.exchange import export
from app.settings import Settings
from models import checkpoint
from models.datasets.folder import read
from models.datasets.images import content_of, pixels
from models.recommender import FitOptions
from models.training.train import train
from tests.app.conftest import Service, Start, running
from tests.models.test_encoders import FAST, rendered


def uri(size: tuple[int, int], kind: str = "png", colour: str = "red") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
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


async def test_a_new_picture_is_read_by_the_checkpoint_in_service(tmp_path: Path) -> None:
    """The folder of the training is gone; a new item is liked or not for the colour of its picture."""
    data, like = rendered(tmp_path / "gallery")
    shutil.rmtree(tmp_path / "gallery")
    settings = {**FAST, "encoders": ["image_cnn"]}
    made = train("content", settings, data, FitOptions(seed=0), held=torch.empty(0, dtype=torch.long))
    checkpoint.save(
        tmp_path / "checkpoints" / "content",
        made.recommender,
        made.fitted,
        data,
        metrics={},
        seed=0,
        fit_seconds=0,
        code_version="0",
    )
    async with running(Settings(data_dir=tmp_path, device="cpu")) as own:
        for name, colour in (("warm", "orange"), ("cold", "navy")):
            await own.put(f"/v1/items/films/{name}", {"attributes": {"poster": uri((48, 64), "png", colour)}})
        support = [{"item_id": data.items.ids[i], "value": 5 if like[0, i] > 0 else 1} for i in range(12)]
        ask = {"domain": "films", "user": {"support": support}, "items": ["warm", "cold"]}
        warm, cold = (row["rating"] for row in (await own.post("/v1/predictions", ask))["predictions"])
    assert data.user_ids[0] == "u0"  # who likes warm colours
    assert warm > cold + 1
