"""Does a bad data set get its documented error? `python -m tests.chaos.readers [--cases 20000]`.

Folders are harmed at random: bytes of a file, a cell, the header, the description, a parquet file. Each must be read
whole or end in a `DatasetError` that names a file of the folder, and a line of it where a row is to blame; no other
exception, and never a part of it.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from models.datasets import folder as folders
from models.datasets.dataset import Dataset
from models.datasets.description import DatasetError
from tests.chaos.mutations import garbled

DESCRIPTION = """
name = "tiny"
[user_attributes]
age = "numeric"
city = "categorical"
[domains.films]
rating_min = 1
rating_max = 5
[domains.films.kinds]
click = { value = 4.0, weight = 0.5, reward = 0.1 }
[domains.films.item_attributes]
genres = "multi"
year = "numeric"
plot = "text"
[domains.books]
rating_min = 0
rating_max = 10
[domains.books.item_attributes]
year = "numeric"
"""
INTERACTIONS = """user_id,domain,item_id,value,occurred_at,kind,dwell_seconds,device,location
ann,films,1,5,1700000000,rating,,phone,
ann,films,2,,2024-01-01T10:00:00Z,click,3.5,,Paris
bob,books,1,7.5,,,,,
bob,films,1,2,1700000100,rating,,,
"c, d",films,"2",3,1700000200,,,,
ann,books,9,0,2024-01-01T10:00:00+02:00,,,,
"""
USERS = """user_id,age,city
ann,34,Paris
bob,,"New
York"
"""
ITEMS = """domain,item_id,title,genres,year,plot,same_as
films,1,Solaris,drama|sci-fi,1972,A planet,books/1
films,2,Stalker,drama,1979,"A zone, a room",
books,1,Solaris,,1961,,
"""
CELLS = (
    *("", " ", "\0", "nan", "inf", "-inf", "1e999", "1e308", "-1", "6", "0x1", "1_000", "٣", "9" * 20, "|", "||"),
    *("films", "nowhere", "films/1", "books/1", "click", "rating", "2024-13-01T00:00:00Z", "2024-01-01"),
    *("x" * 5_000, "\u202e", "é", "e\u0301"),
)
TOML = (
    *("= ", "=", "[", "]", "[[", '"', "'", "#", "inf", "nan", "-1", "1e400", "true", "1979-05-27", "[1]", '""'),
    *("rating", "films", "\ufeff", "\0", "domains", "item_attributes", '"image"', '"numeric"', "0", "9" * 30),
    "a.b.c = 1\n",
)


@dataclass
class Outcome:
    """What became of the cases."""

    cases: int = 0
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By the file that the error names."""
    with_line: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> str:
        """In a line or two."""
        files = ", ".join(f"{n:,} {name}" for name, n in self.refused.most_common())
        return (
            f"{self.cases:,} harmed folders, {self.seconds:.0f} s: {self.read:,} read all the same, "
            f"{self.refused.total():,} refused, {self.with_line:,} of them with a line, {len(self.problems)} mistakes\n"
            f"  refused by file: {files}"
        )


def make(folder: Path, parquet: bool) -> None:
    """A small data set with everything that a data set can have."""
    (folder / "dataset.toml").write_text(DESCRIPTION, encoding="utf-8")
    (folder / "users.csv").write_text(USERS, encoding="utf-8")
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    (folder / "interactions.csv").write_text(INTERACTIONS, encoding="utf-8")
    if parquet:
        frame = pl.read_csv(folder / "interactions.csv", infer_schema=False)
        frame.with_columns(pl.col("value").cast(pl.Float64)).write_parquet(folder / "interactions.parquet")
        (folder / "interactions.csv").unlink()


def harm(folder: Path, chance: random.Random) -> str:
    """Change one file; what was done, in a few words."""
    file = chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    content = file.read_bytes() or b"\n"
    match chance.randrange(6):
        case 0 | 1 if file.suffix == ".csv":
            return _cell(file, chance)
        case 2 if file.suffix == ".toml":
            at = chance.randrange(len(content))
            until = at + chance.choice((0, 1, 5, 20))
            file.write_bytes(content[:at] + chance.choice(TOML).encode() + content[until:])
            return f"{file.name}: text"
        case 3:
            file.write_bytes(
                chance.choice(
                    (
                        b"",
                        b"\n",
                        b"\xff\xfe",
                        b"\xef\xbb\xbf" + content,
                        content.decode("utf-8", "replace").encode("utf-16"),
                    )
                )
            )
            return f"{file.name}: encoding"
        case 4:
            file.write_bytes(content.replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n", b",\n", b'"\n', b";\n"))))
            return f"{file.name}: ends of lines"
        case 5 if file.suffix == ".parquet":
            _column(file, chance)
            return f"{file.name}: column"
    file.write_bytes(garbled(content, chance))
    return f"{file.name}: bytes"


def _cell(file: Path, chance: random.Random) -> str:
    """One cell of a row or of the header replaced, doubled, or taken out."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    line = chance.randrange(len(lines))
    cells = lines[line].split(",")
    at = chance.randrange(len(cells))
    cells[at : at + chance.choice((1, 1, 1, 0, 2))] = [chance.choice(CELLS)] * chance.choice((1, 1, 1, 0, 2))
    lines[line] = ",".join(cells)
    file.write_bytes("\n".join(lines).encode("utf-8"))
    return f"{file.name}: cell"


def _column(file: Path, chance: random.Random) -> None:
    """All cells of a column of a parquet file replaced, by some of another type."""
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return  # harmed before
    name = chance.choice(frame.columns)
    values: list[Any] = chance.choice(
        ([None], [1], [1.5], [float("nan")], ["x"], [["a"]], [b"\xff"], [True], [{"a": 1}])
    )
    frame.with_columns(pl.Series(name, values * len(frame))).write_parquet(file)


def run(cases: int, seed: int = 0) -> Outcome:
    """Try `cases` harmed folders."""
    outcome = Outcome()
    began = time.monotonic()
    for case in range(cases):
        chance = random.Random(f"{seed}/{case}")
        with tempfile.TemporaryDirectory(prefix="warmstart-readers-") as name:
            folder = Path(name) / "tiny"
            folder.mkdir()
            make(folder, parquet=chance.random() < 0.25)
            what = " and ".join(harm(folder, chance) for _ in range(chance.choice((1, 1, 1, 2))))
            _try(folder, what, chance, outcome)
        outcome.cases += 1
    outcome.seconds = time.monotonic() - began
    return outcome


def _try(folder: Path, what: str, chance: random.Random, outcome: Outcome) -> None:
    try:
        data = folders.read(folder)
        folders.event_rows(folder)
        folders.user_rows(folder)
    except DatasetError as error:
        outcome.refused[error.file] += 1
        outcome.with_line += error.line is not None
        lines = 10**9 if error.line is None else (folder / error.file).read_bytes().count(b"\n") + 2
        if not (error.file in NAMES and error.reason and (error.line is None or 1 <= error.line <= lines)):
            outcome.problems.append(f"{what}: says {error}")
        return
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.problems.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        return
    outcome.read += 1
    if not _is_whole(data):
        outcome.problems.append(f"{what}: read, and not whole")


def _is_whole(data: Dataset) -> bool:
    """Whether what was read can be learnt from: finite, and every index within what it counts."""
    seen = data.interactions
    return bool(
        seen.values.isfinite().all()
        and seen.weights.isfinite().all()
        and data.items.content.features.isfinite().all()
        and data.user_attributes.isfinite().all()
        and (len(seen) == 0 or (seen.users.max() < data.n_users and seen.items.max() < len(data.items)))
    )


NAMES = ("dataset.toml", "interactions.csv", "interactions.parquet", "users.csv", "items.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description="read harmed data sets")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcome = run(arguments.cases, arguments.seed)
    print(outcome.told(), flush=True)
    for problem in outcome.problems[:30]:
        print(f"  {problem}")
    raise SystemExit(bool(outcome.problems))


if __name__ == "__main__":
    main()
