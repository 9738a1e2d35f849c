"""The parts of a checkpoint, read as if somebody had tampered with them: data that fits together, or CheckpointError.

Digests only tell damage from what was saved. Whoever can write into the folder can write digests too, so every part is
checked for itself: nothing in it may run, block, take unbounded memory, or fail later, when it is in service.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from models.datasets.schema import Attributes
from models.recommender import ItemTable

PARTS = ("card.json", "weights.safetensors", "items.safetensors", "items.parquet")
DIGESTS = "digests.json"
DOMAIN, TRAINED = "table.domain", "table.trained"
"""Names of the two columns that every item table has, beside the recommender's own."""
ITEM_COLUMNS = ("item_id", "domain", "title", "attributes")


class CheckpointError(Exception):
    """A folder that is no checkpoint this program can serve. `reason` is one of the problem types of the API."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class CheckpointItem:
    """An item as the checkpoint knows it, in the order of the item table's rows."""

    item_id: str
    domain: str
    title: str
    attributes: Attributes


def read_file(path: Path, name: str) -> bytes:
    """Content of one file of a checkpoint folder. Raises CheckpointError.

    Links out of the folder are not followed, and pipes and devices, which may never end, not read.
    """
    file = path / name
    try:
        if file.resolve().parent != path.resolve() or not file.is_file():
            raise CheckpointError("checkpoint-invalid", f"{name} is missing, or no file of the folder")
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError("checkpoint-invalid", f"{name}: {error.strerror}") from error


def verified(path: Path) -> tuple[dict[str, bytes], str]:
    """(content of each part, digest of the checkpoint). Raises CheckpointError."""
    if not path.is_dir() or not (path / DIGESTS).exists():
        raise CheckpointError("checkpoint-unsupported-format", f"{path.name} is not a checkpoint folder")
    listed = read_file(path, DIGESTS)
    contents = {part: read_file(path, part) for part in PARTS}
    try:
        digests = orjson.loads(listed)
    except orjson.JSONDecodeError as error:
        raise CheckpointError("checkpoint-invalid", f"{DIGESTS} cannot be read: {error}") from error
    if not isinstance(digests, dict):
        raise CheckpointError("checkpoint-invalid", f"{DIGESTS} is not a table of digests")
    for part, content in contents.items():
        if sha256(content) != digests.get(part):
            raise CheckpointError("checkpoint-digest-mismatch", f"{part} is not the file that was saved")
    return contents, sha256(listed)


def tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, all finite. Raises CheckpointError."""
    try:
        parsed: dict[str, Tensor] = parse_tensors(content)
        bad = [name for name, tensor in parsed.items() if not tensor.isfinite().all()]
    # A header may name types that torch lacks, or has without arithmetic, and shapes beyond what it can count.
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CheckpointError("checkpoint-invalid", f"a tensor file cannot be read: {error}") from error
    if bad:
        raise CheckpointError("checkpoint-non-finite", f"{bad[0]} has values that are not finite")
    return parsed


def item_table(columns: dict[str, Tensor], items: list[CheckpointItem], domains: list[str]) -> ItemTable:
    """The item table, which agrees with the list of items. Raises CheckpointError."""
    own = dict(columns)
    domain, trained = own.pop(DOMAIN, None), own.pop(TRAINED, None)
    if domain is None or trained is None or domain.dtype != torch.int64 or trained.dtype != torch.bool:
        raise CheckpointError("checkpoint-invalid", "the item table lacks its domain or trained column")
    if domain.dim() != 1 or trained.dim() != 1 or any(column.dim() == 0 for column in own.values()):
        raise CheckpointError("checkpoint-invalid", "a column of the item table has the wrong number of axes")
    if any(len(column) != len(items) for column in [domain, trained, *own.values()]):
        raise CheckpointError("checkpoint-invalid", "the item table and the list of items differ in length")
    index = {name: i for i, name in enumerate(domains)}
    if [index.get(item.domain) for item in items] != domain.tolist():
        raise CheckpointError("checkpoint-invalid", "the item table and the list of items differ in domains")
    return ItemTable(own, domain, trained)


def item_list(content: bytes) -> list[CheckpointItem]:
    """The items of items.parquet. Raises CheckpointError."""
    try:
        frame = pl.read_parquet(content, columns=list(ITEM_COLUMNS))
        if any(frame.schema[name] != pl.String or frame[name].null_count() for name in ITEM_COLUMNS):
            raise CheckpointError("checkpoint-invalid", "items.parquet has a cell that is no text")
        items = [
            CheckpointItem(item_id, domain, title, _attributes(attributes))
            for item_id, domain, title, attributes in frame.iter_rows()
        ]
    # A damaged file can make polars panic, which is no PolarsError and not even an Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError) as error:
        raise CheckpointError("checkpoint-invalid", f"items.parquet cannot be read: {error}") from error
    if frame.select("domain", "item_id").is_duplicated().any():
        raise CheckpointError("checkpoint-invalid", "items.parquet has an item twice")
    if any("\0" in text for item in items for text in (item.item_id, item.title)):
        raise CheckpointError("checkpoint-invalid", "items.parquet has a null character, which no database stores")
    return items


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _attributes(text: str) -> Attributes:
    raw: Any = orjson.loads(text)
    if not isinstance(raw, dict):
        raise ValueError("attributes are no table")
    return raw
