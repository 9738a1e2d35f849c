"""The checkpoint format: a trained recommender on disk. Immutable, verified by digest, data and never code.

    card.json            what it is: recommender, configuration, schema, data fingerprint, validation metrics, seed
    weights.safetensors  the module's parameters and buffers
    items.safetensors    the item table: learnt columns, domain, trained
    items.parquet        the items: id, domain, title, attributes (JSON), content features' source
    digests.json         sha256 of each of the above; its own sha256 is the checkpoint's digest

A checkpoint is written aside and renamed into place, so that a reader sees all of it or nothing.
"""

import hashlib
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
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save_file
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Attributes, Schema
from models.recommender import Fitted, ItemTable, Recommender, Role
from models.registry import RECOMMENDERS
from models.training.domains import Direction, TransferSettings

FORMAT_VERSION = 1
PARTS = ("card.json", "weights.safetensors", "items.safetensors", "items.parquet")
DOMAIN, TRAINED = "table.domain", "table.trained"
"""Names of the two columns that every item table has, beside the recommender's own."""


class CheckpointError(Exception):
    """A folder that is no checkpoint this program can serve. `reason` is one of the problem types of the API."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LearntThrough(BaseModel):
    """How much of an installation's log of interactions a fit has seen."""

    model_config = ConfigDict(frozen=True)

    installation: int
    """The installation's number."""
    key: int
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
class CheckpointItem:
    """An item as the checkpoint knows it, in the order of the item table's rows."""

    item_id: str
    domain: str
    title: str
    attributes: Attributes


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
        digests = {part: _sha256((aside / part).read_bytes()) for part in PARTS}
        (aside / "digests.json").write_text(json.dumps(digests, indent=2, sort_keys=True))
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
    contents, digest = _verified(path)
    card = _parse_card(contents["card.json"])
    kind = RECOMMENDERS.get(card.recommender)
    if kind is None:
        raise CheckpointError("checkpoint-incompatible", f"this version has no recommender named {card.recommender!r}")
    try:
        recommender = kind(kind.Config.model_validate(card.config), card.schema_)
    except ValidationError as error:
        raise CheckpointError("checkpoint-incompatible", f"its configuration does not fit: {error}") from error
    weights = _tensors(contents["weights.safetensors"])
    columns = _tensors(contents["items.safetensors"])
    try:
        recommender.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError("checkpoint-incompatible", f"its weights do not fit: {error}") from error
    items = _parse_items(contents["items.parquet"])
    table = _table(columns, len(items), len(card.schema_.domains))
    recommender.eval().requires_grad_(False).to(device)
    return Checkpoint(path, digest, card, recommender, table.to(device), items)


def read_card(path: Path) -> tuple[Card, str]:
    """(card, digest) without reading the weights' values; verifies nothing but the card and the list of digests."""
    if not path.is_dir() or not (path / "digests.json").is_file():
        raise CheckpointError("checkpoint-unsupported-format", f"{path.name} is not a checkpoint folder")
    try:
        listed = (path / "digests.json").read_bytes()
        return _parse_card((path / "card.json").read_bytes()), _sha256(listed)
    except OSError as error:
        raise CheckpointError("checkpoint-invalid", f"{path.name}: {error.strerror}") from error


def read_items(path: Path) -> tuple[Card, list[CheckpointItem]]:
    """(card, items) of a verified checkpoint, without rebuilding the recommender. Raises CheckpointError."""
    contents, _ = _verified(path)
    return _parse_card(contents["card.json"]), _parse_items(contents["items.parquet"])


def verify(path: Path) -> str:
    """Check every file against digests.json; returns the checkpoint's digest. Raises CheckpointError."""
    return _verified(path)[1]


def _verified(path: Path) -> tuple[dict[str, bytes], str]:
    if not path.is_dir() or not (path / "digests.json").is_file():
        raise CheckpointError("checkpoint-unsupported-format", f"{path.name} is not a checkpoint folder")
    listed = (path / "digests.json").read_bytes()
    try:
        digests = orjson.loads(listed)
        contents = {part: (path / part).read_bytes() for part in PARTS}
    except (orjson.JSONDecodeError, OSError) as error:
        raise CheckpointError("checkpoint-invalid", f"{path.name}: {error}") from error
    if not isinstance(digests, dict):
        raise CheckpointError("checkpoint-invalid", "digests.json is not a table of digests")
    for part, content in contents.items():
        if _sha256(content) != digests.get(part):
            raise CheckpointError("checkpoint-digest-mismatch", f"{part} is not the file that was saved")
    return contents, _sha256(listed)


def _parse_card(content: bytes) -> Card:
    try:
        raw = orjson.loads(content)
        if not isinstance(raw, dict) or raw.get("format_version") != FORMAT_VERSION:
            raise CheckpointError("checkpoint-incompatible", f"this version reads checkpoint format {FORMAT_VERSION}")
        return Card.model_validate(raw)
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise CheckpointError("checkpoint-invalid", f"card.json cannot be read: {error}") from error


def _tensors(content: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = parse_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError("checkpoint-invalid", f"a tensor file cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError("checkpoint-non-finite", f"{name} has values that are not finite")
    return tensors


def _table(columns: dict[str, Tensor], n_items: int, n_domains: int) -> ItemTable:
    domain, trained = columns.pop(DOMAIN, None), columns.pop(TRAINED, None)
    if domain is None or trained is None or domain.dtype != torch.int64 or trained.dtype != torch.bool:
        raise CheckpointError("checkpoint-invalid", "the item table lacks its domain or trained column")
    if any(len(column) != n_items for column in [domain, trained, *columns.values()]):
        raise CheckpointError("checkpoint-invalid", "the item table and the list of items differ in length")
    if n_items and not (int(domain.min()) >= 0 and int(domain.max()) < n_domains):
        raise CheckpointError("checkpoint-invalid", "the item table names a domain that the card does not have")
    return ItemTable(columns, domain, trained)


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


def _parse_items(content: bytes) -> list[CheckpointItem]:
    try:
        frame = pl.read_parquet(content, columns=["item_id", "domain", "title", "attributes"])
        return [
            CheckpointItem(item_id, domain, title, orjson.loads(attributes))
            for item_id, domain, title, attributes in frame.iter_rows()
        ]
    # A damaged file can make polars panic, which is no PolarsError and not even an Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, orjson.JSONDecodeError, OSError) as error:
        raise CheckpointError("checkpoint-invalid", f"items.parquet cannot be read: {error}") from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
