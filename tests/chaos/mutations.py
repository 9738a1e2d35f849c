"""Harm done to a checkpoint folder, at random from a seed: what somebody who can write there might leave.

Each mutation changes one part, then writes digests anew (but for those that are about digests), so that it is the
reader of that part that has to notice. Some leave a checkpoint that is whole, with other numbers in it: nobody can tell
that from one that was trained.
"""

import hashlib
import io
import json
import os
import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from models.checkpoint import PARTS

TENSORS = ("weights.safetensors", "items.safetensors")
EXTREMES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**9, 2**63, -(2**63), 10**30, 1e308),
    *("", "x", "\0", "../../etc/passwd", [], [[]], {}, {"a": 1}),
)
"""Values that some reader will not expect."""


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def mutate(folder: Path, chance: random.Random, canary: Path) -> str:
    """Harm the checkpoint in `folder`; what was done, in a few words."""
    name = chance.choice(sorted(MUTATIONS))
    what = MUTATIONS[name](folder, chance, canary)
    if not name.startswith("unsealed"):
        seal(folder)
    return f"{name}: {what}" if what else name


def seal(folder: Path) -> None:
    """Write digests of what the folder holds now."""
    there = [part for part in PARTS if (folder / part).is_file()]
    digests = {part: hashlib.sha256((folder / part).read_bytes()).hexdigest() for part in there}
    (folder / "digests.json").unlink(missing_ok=True)
    (folder / "digests.json").write_text(json.dumps(digests, indent=2, sort_keys=True))


def _bytes_of_any_part(folder: Path, chance: random.Random, canary: Path) -> str:
    part = chance.choice([*PARTS, "digests.json"])
    (folder / part).write_bytes(garbled((folder / part).read_bytes(), chance))
    return part


def _bytes(folder: Path, chance: random.Random, canary: Path) -> str:
    part = chance.choice(PARTS)
    (folder / part).write_bytes(garbled((folder / part).read_bytes(), chance))
    return part


def garbled(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes taken out, put in, cut off, or doubled."""
    content = content or b"\n"
    at = chance.randrange(len(content) + 1)
    match chance.randrange(6):
        case 0:
            changed = bytearray(content)
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            return bytes(changed)
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[at + chance.randint(1, 64) :]
        case 3:
            return content[:at] + chance.randbytes(chance.randint(1, 64)) + content[at:]
        case 4:
            return content + content
        case _:
            return content[:at] + bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * 16 + content[at + 16 :]


def _header_length(folder: Path, chance: random.Random, canary: Path) -> str:
    part = chance.choice(TENSORS)
    content = (folder / part).read_bytes()
    own = int.from_bytes(content[:8], "little")
    length = chance.choice((0, 1, 7, own - 1, own + 1, len(content), 10**8, 2**31, 2**32, 2**63, 2**64 - 1))
    (folder / part).write_bytes(length.to_bytes(8, "little") + content[8:])
    return f"{part} {length}"


def _header(folder: Path, chance: random.Random, canary: Path) -> str:
    """One entry of a tensor file's table changed: its name, type, shape or place."""
    part = chance.choice(TENSORS)
    content = (folder / part).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:end])
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match chance.randrange(7):
        case 0:
            header[chance.choice(("other", "", "table.domain", "\0", "x" * 10_000))] = header.pop(name)
        case 1:
            del header[name]
        case 2:
            entry["dtype"] = chance.choice(
                ("F16", "BF16", "F64", "I64", "U64", "BOOL", "F8_E4M3", "C64", "O", "", None, 7)
            )
        case 3:
            entry["shape"] = chance.choice(
                (
                    [],
                    [0],
                    [-1],
                    [2**63],
                    [2**32, 2**32],
                    [1] * 200,
                    [*entry["shape"], 1],
                    entry["shape"][::-1],
                    "x",
                    None,
                )
            )
        case 4:
            start, stop = entry["data_offsets"]
            entry["data_offsets"] = chance.choice(
                ([stop, start], [start, stop - 1], [start + 1, stop + 1], [0, 2**64 - 1], [-1, stop], [start], [], None)
            )
        case 5:
            header[name] = chance.choice(EXTREMES)
        case _:
            header["__metadata__"] = chance.choice(({"a": "b"}, {"a": 1}, *EXTREMES))
    text = json.dumps(header).encode()
    (folder / part).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    return f"{part} {name}"


def _deep(folder: Path, chance: random.Random, canary: Path) -> str:
    """Nesting that exhausts the stack of a reader that counts on none."""
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    part = chance.choice(("card.json", *TENSORS))
    (folder / part).write_bytes(deep if part == "card.json" else len(deep).to_bytes(8, "little") + deep)
    return part


def _numbers(folder: Path, chance: random.Random, canary: Path) -> str:
    """A value that is not finite, behind a whole header."""
    part = chance.choice(TENSORS)
    content = bytearray((folder / part).read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    entries = [e for n, e in json.loads(content[8:end]).items() if n != "__metadata__" and e["dtype"] == "F32"]
    places = [at for e in entries for at in range(end + e["data_offsets"][0], end + e["data_offsets"][1], 4)]
    if places:
        at = chance.choice(places)
        content[at : at + 4] = bytes.fromhex(chance.choice(("0000c07f", "0000807f", "000080ff", "ffffffff")))
    (folder / part).write_bytes(content)
    return part


def _card(folder: Path, chance: random.Random, canary: Path) -> str:
    """A value anywhere in the card replaced, or taken out."""
    card = json.loads((folder / "card.json").read_text())
    places = list(_places(card))
    table, key = chance.choice(places)
    if chance.random() < 0.2:
        del table[key]
    else:
        table[key] = chance.choice((*EXTREMES, "popularity", "mf", "films"))
    (folder / "card.json").write_text(json.dumps(card))
    return str(key)


def _places(value: Any) -> Any:
    """(table or array, key) of every value in a document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _configuration(folder: Path, chance: random.Random, canary: Path) -> str:
    """A size in the configuration that would take all memory, or none."""
    card = json.loads((folder / "card.json").read_text())
    numbers = [key for key, value in card["config"].items() if isinstance(value, int | float) and value is not True]
    key = chance.choice(numbers or ["size"])
    card["config"][key] = chance.choice((10**8, 10**9, 10**12, 2**62, 2**63, -1, 0, 1e300))
    (folder / "card.json").write_text(json.dumps(card))
    return key


def _items(folder: Path, chance: random.Random, canary: Path) -> str:
    """The list of items with a cell, a column or a row too many, too few or of another sort."""
    frame = pl.read_parquet(folder / "items.parquet")
    column = chance.choice(frame.columns)
    row = chance.randrange(len(frame))
    cells: list[Any] = frame[column].to_list()
    match chance.randrange(7):
        case 0:
            cells[row] = chance.choice(
                (None, "", "\0", "x" * 100_000, "[]", "5", "{", '{"a": {"b": [[]]}}', cells[row - 1])
            )
            frame = frame.with_columns(pl.Series(column, cells, dtype=pl.String))
        case 1:
            frame = frame.drop(column)
        case 2:
            frame = frame.rename({column: "other"})
        case 3:
            frame = frame.with_columns(
                pl.Series(column, chance.choice(([1], [1.5], [b"x"], [["x"]], [None]))[0:1] * len(frame))
            )
        case 4:
            frame = frame.slice(0, row)
        case 5:
            frame = pl.concat([frame, frame.slice(row, 1)])
        case _:
            frame = frame.sample(fraction=1.0, shuffle=True, seed=row)
    frame.write_parquet(folder / "items.parquet")
    return column


def _pickle(folder: Path, chance: random.Random, canary: Path) -> str:
    """Something that runs when a reader for it opens it, in place of a part or beside the parts."""
    made = io.BytesIO()
    if chance.random() < 0.5:
        torch.save({"weight": Canary(canary)}, made)
    else:
        pickle.dump(Canary(canary), made, protocol=chance.choice((0, 2, 5)))
    name = chance.choice((*PARTS, "weights.pt", "model.pkl", "weights.bin", "pytorch_model.bin"))
    (folder / name).write_bytes(made.getvalue())
    return name


def _no_file(folder: Path, chance: random.Random, canary: Path) -> str:
    """Another thing than a file: nothing, a folder, a pipe that never speaks, a link to a device without end."""
    part = chance.choice([*PARTS, "digests.json"])
    (folder / part).unlink()
    match chance.randrange(5):
        case 0:
            (folder / part).mkdir()
        case 1:
            os.mkfifo(folder / part)
        case 2:
            (folder / part).symlink_to("/dev/zero")
        case 3:
            (folder / part).symlink_to(folder.parent / "content" / part)
        case _:
            return f"{part} gone"
    return part


def _digests(folder: Path, chance: random.Random, canary: Path) -> str:
    digests = json.loads((folder / "digests.json").read_text())
    part = chance.choice(PARTS)
    made = chance.choice((*EXTREMES, digests[part].upper(), digests[part][:-1]))
    listed = chance.choice(({**digests, part: made}, made, {}))
    (folder / "digests.json").write_text(json.dumps(listed))
    return part


MUTATIONS: Mapping[str, Callable[[Path, random.Random, Path], str]] = {
    "bytes": _bytes,
    "card": _card,
    "configuration": _configuration,
    "deep": _deep,
    "header": _header,
    "header length": _header_length,
    "items": _items,
    "numbers": _numbers,
    "pickle": _pickle,
    "unsealed bytes": _bytes_of_any_part,
    "unsealed digests": _digests,
    "unsealed files": _no_file,
}
