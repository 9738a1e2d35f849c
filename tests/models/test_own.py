"""A data set folder of somebody's own CSV files."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from models.datasets.description import DatasetError, read_description
from models.datasets.folder import read
from models.datasets.own import make

RATINGS = (
    "when,reader,stars,book\n2026-01-01T10:00:00Z,ann,4,emma\n2026-01-02T10:00:00Z,bob,1.5,walden\n,ann,2,walden\n"
)
BOOKS = """book,title,year,shelves,language,blurb
emma,Emma,1815,novel|satire,en,A young woman makes matches.
walden,Walden,1854,essay,en,A man lives in the woods.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(RATINGS, encoding="utf-8")
    (tmp_path / "books.csv").write_text(BOOKS, encoding="utf-8")
    return tmp_path


COLUMNS = {"domain": "books", "user": "reader", "item": "book", "rating": "stars"}


def test_columns_may_be_called_anything(folder: Path) -> None:
    made = make(
        folder / "ratings.csv", folder / "out", **COLUMNS, time="when", items=folder / "books.csv", scale=(1, 5)
    )
    assert made.user_ids == ["ann", "bob"]
    assert made.items.ids == ["emma", "walden"]
    assert made.items.titles == ["Emma", "Walden"]
    domain = read_description(folder / "out").domains["books"]
    assert (domain.rating_min, domain.rating_max) == (1, 5)
    assert domain.item_attributes["year"] == "numeric"
    assert domain.item_attributes["shelves"] == "multi"
    assert domain.item_attributes["language"] == "categorical"
    assert made.interactions.values.tolist() == [2, 4, 1.5]  # of ann the one without a time is first
    assert read(folder / "out").fingerprint == made.fingerprint


def test_without_a_scale_it_is_that_of_the_ratings(folder: Path) -> None:
    make(folder / "ratings.csv", folder / "out", **COLUMNS)
    domain = read_description(folder / "out").domains["books"]
    assert (domain.rating_min, domain.rating_max) == (1.5, 4)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"user": "nobody"}, "no column 'nobody'"), ({"user": "book"}, "two things"), ({"rating": "when"}, "scale")],
)
def test_what_cannot_be_is_said(folder: Path, changed: dict[str, str], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        make(folder / "ratings.csv", folder / "out", **(COLUMNS | changed))
    assert not (folder / "out").exists()


def test_a_bad_row_is_named_and_nothing_is_left(folder: Path) -> None:
    with (folder / "ratings.csv").open("a", encoding="utf-8") as file:
        file.write("yesterday,bob,3,emma\n")
    with pytest.raises(DatasetError, match="line 5"):
        make(folder / "ratings.csv", folder / "out", **COLUMNS, time="when")
    assert not (folder / "out").exists()


def test_the_command_says_what_it_made(folder: Path) -> None:
    words = ["datasets", "make", "ratings.csv", "--domain", "books", "--user", "reader", "--item", "book"]
    words += ["--rating", "stars", "--scale", "1", "5", "--out", str(folder / "out")]
    words[2] = str(folder / "ratings.csv")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "2 users, 2 items, 3 ratings" in done.output
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "exists" in refused.output
