"""The checkpoint format: a trained recommender on disk. Immutable, verified by digest, data and never code.

    card.json            what it is: recommender, configuration, schema, data fingerprint, validation metrics, seed
    weights.safetensors  the module's parameters and buffers
    items.safetensors    the item table: learnt columns, domain, trained
    items.parquet        the items: id, domain, title, attributes (JSON), content features' source
    digests.json         sha256 of each of the above; its own sha256 is the checkpoint's digest

A checkpoint is written aside and renamed into place, so that a reader sees all of it or nothing.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint_parts import (
    DIGESTS,
    DOMAIN,
    PARTS,
    TRAINED,
    CheckpointError,
    CheckpointItem,
    item_list,
    item_table,
    read_file,
    sha256,
    tensors,
    verified,
)
from models.datasets.dataset import Dataset, item_content
from models.datasets.schema import Schema
from models.recommender import Evidence, Fitted, ItemTable, Recommender, Role
from models.registry import RECOMMENDERS
from models.training.domains import Direction, TransferSettings

__all__ = ["PARTS", "Card", "Checkpoint", "CheckpointError", "CheckpointItem", "LearntThrough", "load", "save"]
FORMAT_VERSION = 1


class LearntThrough(BaseModel):
    """How much of an installation's log of interactions a fit has seen."""

    model_config = ConfigDict(frozen=True)

    installation: int
    """The installation's number."""
    key: int = Field(ge=0, lt=1 << 63)
    """Key of the newest interaction that there was."""


class Card(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    recommender: str
    role: Role | None = None
    """Its usual role, which may depend on the configuration. None in checkpoints older than this line."""
    config: dict[str, Any]
    schema_: Schema
    dataset: str
    dataset_fingerprint: str
    metrics: dict[str, float]
    """Validation metrics, on users the fit did not learn from."""
    epochs: int = 0
    seed: int = 0
    fit_seconds: float = 0.0
    code_version: str
    created: datetime
    learnt_through: LearntThrough | None = None
    """None where the data did not come from an installation."""

    @property
    def targets(self) -> list[str]:
        """Domains that the checkpoint is there to answer for: of a transfer its target alone, otherwise all."""
        names = [domain.name for domain in self.schema_.domains]
        kind = RECOMMENDERS.get(self.recommender)
        if kind is None or not issubclass(kind.Config, TransferSettings):
            return names
        direction = Direction.named(self.schema_, self.config.get("source"), self.config.get("target"))
        return [names[direction.target]]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    path: Path
    digest: str
    card: Card
    recommender: Recommender
    table: ItemTable
    items: list[CheckpointItem]


def save(
    path: Path,
    recommender: Recommender,
    fitted: Fitted,
    data: Dataset,
    *,
    metrics: Mapping[str, float],
    seed: int,
    fit_seconds: float,
    code_version: str,
    learnt_through: LearntThrough | None = None,
    fingerprint: str | None = None,
) -> Path:
    """Write a checkpoint folder at `path`, all or nothing. Raises FileExistsError where there is one already.

    `fingerprint` is that of the data set folder, where the fit has seen only some of its domains.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; a checkpoint is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    card = Card(
        recommender=recommender.name,
        role=recommender.role,
        config=recommender.config.model_dump(mode="json"),
        schema_=recommender.schema,
        dataset=data.name,
        dataset_fingerprint=fingerprint or data.fingerprint,
        metrics=dict(metrics),
        epochs=fitted.report.epochs,
        seed=seed,
        fit_seconds=round(fit_seconds, 3),
        code_version=code_version,
        created=datetime.now(UTC),
        learnt_through=learnt_through,
    )
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        (aside / "card.json").write_text(card.model_dump_json(indent=2))
        save_file(_contiguous(recommender.state_dict()), aside / "weights.safetensors")
        table = {**fitted.table.columns, DOMAIN: fitted.table.domain, TRAINED: fitted.table.trained}
        save_file(_contiguous(table), aside / "items.safetensors")
        _items_frame(data).write_parquet(aside / "items.parquet")
        digests = {part: sha256((aside / part).read_bytes()) for part in PARTS}
        (aside / DIGESTS).write_text(json.dumps(digests, indent=2, sort_keys=True))
        for file in aside.iterdir():
            _fsync(file)
        aside.chmod(0o755)
        os.rename(aside, path)
        _fsync(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return path


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read, verify and rebuild a checkpoint. Raises CheckpointError, whose reason says what is wrong with it."""
    contents, digest = verified(path)
    card = _parse_card(contents["card.json"])
    recommender = _rebuilt(card, tensors(contents["weights.safetensors"]))
    items = item_list(contents["items.parquet"])
    domains = [domain.name for domain in card.schema_.domains]
    table = item_table(tensors(contents["items.safetensors"]), items, domains)
    _check_columns(recommender, table)
    _check_answers(recommender, table, [domains.index(name) for name in card.targets])
    recommender.to(device)
    return Checkpoint(path, digest, card, recommender, table.to(device), items)


def read_card(path: Path) -> tuple[Card, str]:
    """(card, digest) without reading the weights' values; verifies nothing but the card and the list of digests."""
    if not path.is_dir() or not (path / DIGESTS).exists():
        raise CheckpointError("checkpoint-unsupported-format", f"{path.name} is not a checkpoint folder")
    listed = read_file(path, DIGESTS)
    return _parse_card(read_file(path, "card.json")), sha256(listed)


def read_items(path: Path) -> tuple[Card, list[CheckpointItem]]:
    """(card, items) of a verified checkpoint, without rebuilding the recommender. Raises CheckpointError."""
    contents, _ = verified(path)
    return _parse_card(contents["card.json"]), item_list(contents["items.parquet"])


def verify(path: Path) -> str:
    """Check every file against digests.json; returns the checkpoint's digest. Raises CheckpointError."""
    return verified(path)[1]


def _rebuilt(card: Card, weights: dict[str, Tensor]) -> Recommender:
    """The recommender of a card, with those weights."""
    kind = RECOMMENDERS.get(card.recommender)
    if kind is None:
        raise CheckpointError("checkpoint-incompatible", f"this version has no recommender named {card.recommender!r}")
    try:
        config = kind.Config.model_validate(card.config)
        # First without memory: a card may ask for any size, and only one that its weights have is taken.
        with torch.device("meta"):
            kind(config, card.schema_).load_state_dict(weights, assign=True)
        recommender = kind(config, card.schema_)
        recommender.load_state_dict(weights)
    # Sizes out of range, and domains that a transfer does not have, are found out by whoever builds the layers.
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise CheckpointError("checkpoint-incompatible", f"configuration and weights do not fit: {error}") from error
    return recommender.eval().requires_grad_(False)


def _check_columns(recommender: Recommender, table: ItemTable) -> None:
    """Raise CheckpointError where rows of new items, made from their content, would not fit into the item table."""
    encoder = recommender.schema.item_attributes
    try:
        with torch.no_grad():
            expected = recommender.embed_items(item_content(encoder, [""], [{}]), 0)
    except Exception as error:  # whatever it says, it cannot serve
        raise CheckpointError("checkpoint-incompatible", f"it makes no rows of items: {error}") from error
    if _form(expected) != _form(table.columns):
        raise CheckpointError("checkpoint-incompatible", "its item table has other columns than the recommender")


def _check_answers(recommender: Recommender, table: ItemTable, targets: list[int]) -> None:
    """Raise CheckpointError where a newcomer, or somebody with one interaction, gets no finite scores."""
    if not len(table):
        return
    attributes = torch.zeros(1, recommender.schema.user_attributes.width)
    low, high = recommender.schema.scales()
    for target in targets:
        of_target = (table.domain == target).nonzero()[:1].T  # (1, 1), or (1, 0) where the domain has no items yet
        one = Evidence(
            items=of_target,
            values=((low + high) / 2)[target].expand(of_target.shape),
            weights=torch.ones(of_target.shape),
            kinds=torch.zeros(of_target.shape, dtype=torch.int64),
            times=torch.full(of_target.shape, torch.nan, dtype=torch.float64),
            attributes=attributes,
        )
        for evidence in (one.emptied(), one):
            try:
                with torch.no_grad():
                    scores = recommender.score(recommender.adapt(evidence, table, target), table)
            except Exception as error:  # whatever it says, it cannot serve
                raise CheckpointError("checkpoint-incompatible", f"it does not answer: {error}") from error
            if not all(part.isfinite().all() for part in (scores.mean, scores.std) if part is not None):
                raise CheckpointError("checkpoint-non-finite", "its scores are not finite")


def _form(columns: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    return {name: (column.shape[1:], column.is_floating_point()) for name, column in columns.items()}


def _parse_card(content: bytes) -> Card:
    try:
        raw = orjson.loads(content)
        if not isinstance(raw, dict) or raw.get("format_version") != FORMAT_VERSION:
            raise CheckpointError("checkpoint-incompatible", f"this version reads checkpoint format {FORMAT_VERSION}")
        return Card.model_validate(raw)
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise CheckpointError("checkpoint-invalid", f"card.json cannot be read: {error}") from error


def _items_frame(data: Dataset) -> pl.DataFrame:
    names = [domain.name for domain in data.schema.domains]
    return pl.DataFrame(
        {
            "item_id": data.items.ids,
            "domain": [names[d] for d in data.items.domain.tolist()],
            "title": data.items.titles,
            "attributes": [orjson.dumps(dict(row)).decode() for row in data.items.attributes],
        },
        schema={"item_id": pl.String, "domain": pl.String, "title": pl.String, "attributes": pl.String},
    )


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
