"""Checkpoints that must not be served: each is refused with its own problem, and the one in service goes on answering.

What is wrong with a checkpoint is in `tests/models/test_checkpoint.py`; here is what a caller of the reload sees of it.
"""

import asyncio
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import PARTS
from tests.app.conftest import Service, Start, item_ids
from tests.app.refusals import ECHO, refused

HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'


async def reload(service: Service, name: str) -> httpx.Response:
    return await service.http.post("/v1/admin/checkpoints/reload", json={"domain": "films", "checkpoint": name})


def sealed(path: Path) -> None:
    """Digests of what the checkpoint holds now: what somebody who tampers would write."""
    digests = {part: hashlib.sha256((path / part).read_bytes()).hexdigest() for part in PARTS}
    (path / "digests.json").write_text(json.dumps(digests))


def written(part: str, content: bytes) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        (path / part).write_bytes(content)
        sealed(path)

    return harm


def cut(path: Path) -> None:
    content = (path / "weights.safetensors").read_bytes()
    written("weights.safetensors", content[: len(content) // 2])(path)


def flipped(path: Path) -> None:
    content = bytearray((path / "items.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "items.safetensors").write_bytes(content)


def without(part: str) -> Callable[[Path], None]:
    return lambda path: (path / part).unlink()


def tensors(part: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        held = load_file(path / part)
        change(held)
        save_file(held, path / part)
        sealed(path)

    return harm


def card(**changes: object) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        said = json.loads((path / "card.json").read_text())
        (path / "card.json").write_text(json.dumps(said | changes))
        sealed(path)

    return harm


def items(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        change(pl.read_parquet(path / "items.parquet")).write_parquet(path / "items.parquet")
        sealed(path)

    return harm


def configured(**changes: object) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        config = json.loads((path / "card.json").read_text())["config"]
        card(config=config | changes)(path)

    return harm


def too_large(path: Path) -> None:
    for part, name in (("weights.safetensors", "mean"), ("items.safetensors", "bias")):
        tensors(part, lambda held, name=name: held[name].fill_(3e38))(path)


def in_place_of(part: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        (path / part).unlink()
        make(path / part)

    return harm


HARMED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated": ("checkpoint-invalid", cut),
    "header length 2^63": ("checkpoint-invalid", written("weights.safetensors", (2**63).to_bytes(8, "little") + b"{}")),
    "overlapping offsets": (
        "checkpoint-invalid",
        written("items.safetensors", len(HEADER).to_bytes(8, "little") + HEADER + bytes(12)),
    ),
    "pickle inside": ("checkpoint-invalid", written("weights.safetensors", pickle.dumps({"mean": [1.0]}))),
    "no weights": ("checkpoint-invalid", without("weights.safetensors")),
    "card cut short": ("checkpoint-invalid", written("card.json", b'{"format_version": 1')),
    "one bit changed": ("checkpoint-digest-mismatch", flipped),
    "NaN in a weight": (
        "checkpoint-non-finite",
        tensors("weights.safetensors", lambda held: next(iter(held.values())).view(-1)[:1].fill_(torch.nan)),
    ),
    "infinity in a row": (
        "checkpoint-non-finite",
        tensors("items.safetensors", lambda held: held["bias"][:1].fill_(torch.inf)),
    ),
    "a weight missing": ("checkpoint-incompatible", tensors("weights.safetensors", lambda held: held.popitem())),
    "another recommender's weights": ("checkpoint-incompatible", card(recommender="popularity")),
    "a recommender of a later version": ("checkpoint-incompatible", card(recommender=ECHO)),
    "a later format": ("checkpoint-incompatible", card(format_version=2)),
    "a pipe that never speaks": ("checkpoint-invalid", in_place_of("weights.safetensors", os.mkfifo)),
    "a file without end": (
        "checkpoint-invalid",
        in_place_of("items.safetensors", lambda path: path.symlink_to("/dev/zero")),
    ),
    "a link to another checkpoint's part": (
        "checkpoint-invalid",
        in_place_of("items.parquet", lambda path: path.symlink_to(path.parent.parent / "bias" / "items.parquet")),
    ),
    "weights whose sums overflow": ("checkpoint-non-finite", too_large),
    "a setting that there is none of": ("checkpoint-incompatible", configured(size=10**12)),
    "a column missing": ("checkpoint-incompatible", tensors("items.safetensors", lambda held: held.pop("bias"))),
    "a column too many": (
        "checkpoint-incompatible",
        tensors("items.safetensors", lambda held: held.update(more=held["bias"].clone())),
    ),
    "an item of a domain that there is none of": (
        "checkpoint-invalid",
        items(lambda frame: frame.with_columns(domain=pl.lit(ECHO))),
    ),
    "an item twice": ("checkpoint-invalid", items(lambda frame: pl.concat([frame[:-1], frame[:1]]))),
    "an id that no database stores": (
        "checkpoint-invalid",
        items(lambda frame: frame.with_columns(item_id=pl.col("item_id") + "\0")),
    ),
    "attributes that are no table": (
        "checkpoint-invalid",
        items(lambda frame: frame.with_columns(attributes=pl.lit("[]"))),
    ),
    "no digests": ("checkpoint-unsupported-format", without("digests.json")),
}


@pytest.mark.parametrize("case", HARMED)
async def test_a_harmed_checkpoint_is_refused_and_the_old_one_goes_on(start: Start, case: str) -> None:
    slug, harm = HARMED[case]
    async with start(("bias",)) as service:
        folder = service.settings.checkpoints
        before, stored = await _answer(service), await service.stored()
        shutil.copytree(folder / "bias", folder / "harmed")
        harm(folder / "harmed")
        refused(await reload(service, "harmed"), slug)
        after = await _answer(service)
        assert (after["items"], after["parts"][0]["digest"]) == (before["items"], before["parts"][0]["digest"])
        assert (await service.stored())["deployments"] == stored["deployments"]
        listed = {entry["checkpoint"]: entry for entry in await service.get("/v1/admin/checkpoints")}
        assert listed["bias"]["serving"] == [{"domain": "films", "role": "collaborative"}]
        assert listed["harmed"]["serving"] == []


async def test_the_checkpoint_in_service_may_be_harmed_on_disk(start: Start) -> None:
    """It is in memory; a reload of it is refused."""
    async with start(("bias",)) as service:
        before = await _answer(service)
        flipped(service.settings.checkpoints / "bias")
        refused(await reload(service, "bias"), "checkpoint-digest-mismatch")
        assert (await _answer(service))["items"] == before["items"]


@pytest.mark.parametrize(
    "name",
    [
        "../bias",
        "..",
        ".",
        ".hidden",
        "/etc/passwd",
        "bias/../bias",
        "bias/",
        "bias\\..",
        "file:///canary",
        "https://canary.example/model",
        "s3://canary/model",
        "bias\n",
        "bias\u0000",
        "-rf",
        " ",
        "c" * 129,
    ],
)
async def test_a_checkpoint_is_named_not_addressed(service: Service, name: str) -> None:
    refused(await reload(service, name), "invalid-checkpoint-id")


async def test_a_link_that_leads_out_is_refused(start: Start, tmp_path: Path) -> None:
    async with start(("bias",)) as service:
        folder = service.settings.checkpoints
        shutil.copytree(folder / "bias", tmp_path / "elsewhere")
        (folder / "out").symlink_to(tmp_path / "elsewhere")
        refused(await reload(service, "out"), "invalid-checkpoint-id")


async def test_files_of_other_formats_are_refused(start: Start) -> None:
    """A `.pt` file is never opened: it may run whatever it likes."""
    async with start(("bias",)) as service:
        folder = service.settings.checkpoints
        (folder / "model.pt").write_bytes(pickle.dumps(_Canary(str(folder / "executed"))))
        (folder / "model").mkdir()
        (folder / "model" / "weights.pt").write_bytes(pickle.dumps(_Canary(str(folder / "executed"))))
        for name in ("model.pt", "model"):
            refused(await reload(service, name), "checkpoint-unsupported-format")
        assert not (folder / "executed").exists()
        refused(await reload(service, "nowhere"), "checkpoint-not-found")


class _Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.path, "w")


async def test_a_checkpoint_of_another_domain_is_incompatible(start: Start) -> None:
    async with start(("bias",)) as service:
        await service.put("/v1/domains/books", {})
        response = await service.http.post(
            "/v1/admin/checkpoints/reload", json={"domain": "books", "checkpoint": "bias"}
        )
        refused(response, "checkpoint-incompatible")
        assert (await service.get("/v1/domains"))[0]["parts"] == []


async def test_one_reload_of_a_role_at_a_time(start: Start) -> None:
    """Twenty at once: each is either done or told that another is under way, and no more are loaded than were done."""
    async with start() as service:
        done = await asyncio.gather(*(reload(service, "bias") for _ in range(20)))
        statuses = [response.status_code for response in done]
        for response in done:
            if response.status_code != 200:
                refused(response, "reload-in-progress")
        assert set(statuses) == {200, 409}
        assert (await service.stored())["deployments"] == 2 + statuses.count(200)
        assert (await _answer(service))["parts"][1]["checkpoint"] == "bias"


async def test_there_may_be_nothing_to_roll_back(start: Start) -> None:
    async with start(("bias",)) as service:
        for role in ("collaborative", "content"):
            body = {"domain": "films", "role": role}
            refused(await service.http.post("/v1/admin/checkpoints/rollback", json=body), "nothing-to-roll-back")


async def _answer(service: Service) -> dict[str, object]:
    body = {"domain": "films", "support": [{"item_id": "item3", "value": 5}]}
    answer: dict[str, object] = await service.post("/v1/cold-start/recommendations", body)
    assert len(item_ids(answer)) == 10
    return answer
