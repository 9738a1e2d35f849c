"""The data set folder: what is read, what is refused and where the blame is put, what is written."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.description import DatasetError, Description, DomainDescription, format_description
from models.datasets.folder import Tables, read, write
from models.datasets.schema import Kind
from models.datasets.summary import check
from tests.models.folders import INTERACTIONS, ITEMS, TWO_DOMAINS, USERS, grid_tables, two_domains, write_files


def test_reads_everybody_and_everything(tmp_path: Path) -> None:
    """Users and items are those of all files; ids stay strings, so that 7 and 007 are two films."""
    data = two_domains(tmp_path / "d")
    assert data.name == "films and books"
    assert data.user_ids == ["ann", "bob", "cid"]
    assert list(zip(data.items.domain.tolist(), data.items.ids, strict=True)) == [
        (0, "007"),
        (0, "7"),
        (0, "8"),
        (1, "7"),
    ]
    assert data.items.titles == ["007", "Seven", "Eight", "Seven (the book)"]
    assert data.items.attributes[1] == {"year": 1995, "genres": ["crime", "drama"], "plot": "Two detectives."}
    assert data.items.attributes[0] == {}
    assert data.items.content.texts == ["007", "Seven Two detectives.", "Eight", "Seven (the book)"]


def test_interactions_are_in_canonical_order_with_their_worth(tmp_path: Path) -> None:
    """By user, then time with unknown times first; a click stands for the domain's rating at its weight."""
    data = two_domains(tmp_path / "d")
    seen = data.interactions
    assert data.schema.kinds == ["rating", "click", "view"]
    assert seen.users.tolist() == [0, 0, 0, 1, 1]
    assert seen.items.tolist() == [3, 0, 1, 1, 3]
    assert seen.values.tolist() == [9, 2, 4.5, 4, 6]
    assert seen.weights.tolist() == pytest.approx([1, 1, 1, 0.2, 0.1])
    assert seen.kinds.tolist() == [0, 0, 0, 1, 2]
    assert seen.times[1:].tolist() == [50, 100, 60, 70]
    assert seen.times[0].isnan()


def test_attributes_are_encoded_by_one_encoder_over_all_domains(tmp_path: Path) -> None:
    """crime and drama occur twice each, in two domains; ann has no row and is zeros."""
    data = two_domains(tmp_path / "d")
    genres = next(field for field in data.schema.item_attributes.fields if field.name == "genres")
    assert genres.vocabulary == ["crime", "drama"]
    assert data.items.content.features[:, -2:].tolist() == [[0, 0], [1, 1], [1, 0], [0, 1]]
    spread = 2**0.5 / 2
    assert torch.allclose(data.user_attributes, torch.tensor([[0, 0], [spread, 1], [-spread, 1]]))


def test_a_link_holds_in_both_directions(tmp_path: Path) -> None:
    assert two_domains(tmp_path / "d").items.same_as == {1: 3, 3: 1}


def test_users_and_items_files_are_optional(tmp_path: Path) -> None:
    data = read(write_files(tmp_path / "d", users=None, items=None))
    assert data.user_ids == ["ann", "bob"]
    assert data.items.titles == ["007", "7", "7"]
    assert not data.user_attributes.any()


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("0", 0.0),
        ("978300760.25", 978300760.25),
        ("-1", -1.0),
        ("2001-02-03T04:05:06Z", datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()),
        ("2001-02-03 04:05:06.5+01:30", datetime(2001, 2, 3, 2, 35, 6, 500_000, tzinfo=UTC).timestamp()),
        ("2001-02-03t04:05:06z", datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()),
    ],
)
def test_times(tmp_path: Path, cell: str, seconds: float) -> None:
    """Unix seconds and RFC 3339 may stand in one column."""
    rows = f"user_id,domain,item_id,value,occurred_at\nann,films,1,3,{cell}\nbob,films,1,3,12\n"
    data = read(write_files(tmp_path / "d", interactions=rows))
    assert data.interactions.times.tolist() == [seconds, 12.0]


HEADER = "user_id,domain,item_id,value,occurred_at,kind\n"
BAD_ROWS = {
    "no such column": ("interactions", "user_id,domain,item_id\n", 1, "no column 'value'"),
    "unknown column": ("interactions", "user_id,domain,item_id,value,valeu\n", 1, "unknown column 'valeu'"),
    "no header": ("interactions", "", 1, "empty"),
    "empty user": ("interactions", f"{HEADER}a,films,1,3,,\n,films,1,3,,\n", 3, "user_id is empty"),
    "blank item": ("interactions", f"{HEADER}a,films,  ,3,,\n", 2, "item_id is empty"),
    "unknown domain": ("interactions", f"{HEADER}a,music,1,3,,\n", 2, "no such domain, only films, books ('music')"),
    "no value": ("interactions", f"{HEADER}a,films,1,,,\n", 2, "value is empty"),
    "no number": ("interactions", f"{HEADER}a,films,1,good,,\n", 2, "value is not a number ('good')"),
    "not a number": ("interactions", f"{HEADER}a,films,1,NaN,,\n", 2, "value is not a number"),
    "infinite": ("interactions", f"{HEADER}a,films,1,inf,,\n", 2, "value is not a number"),
    "off the scale": (
        "interactions",
        f"{HEADER}a,books,1,0,,\na,films,1,0,,\n",
        3,
        "outside the domain's rating scale",
    ),
    "kind of another domain": ("interactions", f"{HEADER}a,books,1,3,,click\n", 2, "no worth in its domain ('click')"),
    "bad time": ("interactions", f"{HEADER}a,films,1,3,yesterday,\n", 2, "occurred_at is neither"),
    "time without zone": ("interactions", f"{HEADER}a,films,1,3,2001-02-03T04:05:06,\n", 2, "occurred_at is neither"),
    "no such day": ("interactions", f"{HEADER}a,films,1,3,2001-02-30T04:05:06Z,\n", 2, "occurred_at is neither"),
    "milliseconds": ("interactions", f"{HEADER}a,films,1,3,978300760000,\n", 2, "occurred_at is neither"),
    "bad dwell": ("interactions", "user_id,domain,item_id,value,dwell_seconds\na,films,1,3,long\n", 2, "dwell_seconds"),
    "too many cells": ("interactions", f"{HEADER}a,films,1,3,,\na,films,1,3,,,,\n", 3, "8 cells"),
    "after a cell of two lines": ("interactions", f'{HEADER}a,films,"1\n2",3,,\nb,films,1,9,,\n', 4, "scale"),
    "after a blank line, CR LF": ("interactions", f"{HEADER}a,films,1,3,,\n\r\nb,films,1,9,,\n", 4, "scale"),
    "after a blank line": ("interactions", f"{HEADER}a,films,1,3,,\n\nb,films,1,9,,\n", 4, "scale"),
    "user twice": ("users", "user_id,age\nann,3\nbob,4\nann,5\n", 4, "the user has a row already"),
    "age in words": ("users", "user_id,age\nann,old\n", 2, "age is not a number ('old')"),
    "undeclared attribute": ("users", "user_id,shoe\nann,43\n", 1, "unknown column 'shoe'"),
    "item twice": ("items", "domain,item_id\nfilms,1\nbooks,1\nfilms,1\n", 4, "the item has a row already"),
    "item of no domain": ("items", "domain,item_id\nmusic,1\n", 2, "no such domain"),
    "link to nothing": ("items", "domain,item_id,same_as\nfilms,1,books/2\n", 2, "no known domain/item_id ('books/2')"),
    "link within": ("items", "domain,item_id,same_as\nfilms,1,films/7\n", 2, "an item of the same domain"),
    "attribute of another domain": ("items", "domain,item_id,year\nbooks,1,1999\n", 2, "no item attribute 'year'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path: Path, case: str) -> None:
    """File, line (the header is line 1) and reason."""
    file, content, line, reason = BAD_ROWS[case]
    with pytest.raises(DatasetError) as caught:
        read(write_files(tmp_path / "d", **{file: content}))
    assert (caught.value.file, caught.value.line) == (f"{file}.csv", line)
    assert reason in caught.value.reason
    assert f"{file}.csv, line {line}: " in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d")
    (folder / "users.csv").write_bytes(b"user_id,city\nann,Oslo\nbob,Troms\xf8\n")
    with pytest.raises(DatasetError, match=r"users\.csv, line 3: the line is not UTF-8"):
        read(folder)


BAD_DESCRIPTIONS = {
    "not TOML": ("name = ", "dataset.toml"),
    "no domain": ('name = "x"\n[domains]', "domains"),
    "misspelt": (TWO_DOMAINS.replace("rating_max = 5", "rating_max = 5\nratingmin = 3"), "domains.films.ratingmin"),
    "no range": (TWO_DOMAINS.replace("rating_max = 5", "rating_max = 1"), "rating_min is not below rating_max"),
    "slash": (TWO_DOMAINS.replace("domains.books", 'domains."a/b"'), "slash"),
    "worth of a rating": (TWO_DOMAINS.replace("click =", "rating ="), "its own value"),
    "worth off the scale": (TWO_DOMAINS.replace("value = 4.0", "value = 6.0"), "outside the rating scale"),
    "two meanings": (
        TWO_DOMAINS.replace('books.item_attributes]\ngenres = "multi"', 'books.item_attributes]\ngenres = "text"'),
        "'multi' in one domain and 'text' in another",
    ),
    "reserved": (TWO_DOMAINS.replace("age =", "user_id ="), "cannot name an attribute"),
    "unknown kind of attribute": (TWO_DOMAINS.replace('age = "numeric"', 'age = "number"'), "user_attributes.age"),
}


@pytest.mark.parametrize("case", BAD_DESCRIPTIONS)
def test_a_bad_description_is_named(tmp_path: Path, case: str) -> None:
    content, reason = BAD_DESCRIPTIONS[case]
    with pytest.raises(DatasetError) as caught:
        read(write_files(tmp_path / "d", dataset=content))
    assert caught.value.file == "dataset.toml"
    assert reason in str(caught.value)


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a data set folder"):
        read(tmp_path)
    with pytest.raises(DatasetError, match="neither"):
        read(write_files(tmp_path / "d", interactions=None))


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Typed columns and text columns give one data set, with one fingerprint."""
    from_csv = two_domains(tmp_path / "csv")
    folder = write_files(tmp_path / "parquet", interactions=None)
    frame = pl.read_csv(INTERACTIONS.encode(), schema_overrides={"item_id": pl.String, "value": pl.Float64})
    moments = [datetime.fromtimestamp(s, UTC) if s is not None else None for s in (100, 50, None, 60, 70)]
    frame.with_columns(pl.Series("occurred_at", moments)).write_parquet(folder / "interactions.parquet")
    assert read(folder).fingerprint == from_csv.fingerprint


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d", interactions=None)
    frame = pl.DataFrame({"user_id": ["a", "b"], "domain": ["films"] * 2, "item_id": [1, 2], "value": [3.0, 6.0]})
    frame.write_parquet(folder / "interactions.parquet")
    with pytest.raises(DatasetError, match=r"interactions\.parquet, row 2: .*scale"):
        read(folder)
    (folder / "interactions.csv").write_text(INTERACTIONS)
    with pytest.raises(DatasetError, match="stands beside"):
        read(folder)


def test_equal_data_has_an_equal_fingerprint(tmp_path: Path) -> None:
    """The order of rows in the files means nothing; a changed value does."""
    first = two_domains(tmp_path / "a").fingerprint
    header, *rows = INTERACTIONS.splitlines()
    turned = "\n".join([header, *reversed(rows)])
    header, *rows = USERS.splitlines()
    assert (
        read(write_files(tmp_path / "b", interactions=turned, users="\n".join([header, *reversed(rows)]))).fingerprint
        == first
    )
    assert read(write_files(tmp_path / "c", interactions=INTERACTIONS.replace("4.5", "4"))).fingerprint != first
    assert read(write_files(tmp_path / "e", items=ITEMS.replace("Eight", "8"))).fingerprint != first


def test_bad_tables_leave_nothing_behind(tmp_path: Path) -> None:
    """A folder that exists is a folder that loads: what cannot be read back is not put into place."""
    tables = grid_tables()
    broken = Tables(tables.description, tables.interactions.with_columns(value=pl.lit(9)), tables.users, tables.items)
    with pytest.raises(DatasetError):
        write(broken, tmp_path / "grid")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_never_overwritten(tmp_path: Path) -> None:
    write(grid_tables(), tmp_path / "grid")
    with pytest.raises(FileExistsError):
        write(grid_tables(), tmp_path / "grid")


def test_check_counts_by_hand(tmp_path: Path) -> None:
    summary = check(write_files(tmp_path / "d"))
    films, books = summary.domains
    assert (summary.users, summary.interactions, summary.links) == (3, 5, 2)
    assert summary.shared_users == {("films", "books"): 2}
    assert (films.users, films.items, films.interactions, films.ratings) == (2, 3, 3, 2)
    assert films.mean_rating == pytest.approx(3.25)
    assert films.density == pytest.approx(3 / 6)
    assert films.content_share == pytest.approx(2 / 3)
    assert (books.timed_share, books.density) == (0.5, 1.0)


# Anything but what CSV or the format gives a meaning to: no surrogates, no NUL, no bare carriage return.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=8)
IDS = TEXT.filter(lambda text: bool(text.strip()))
VALUES = TEXT.filter(lambda text: "|" not in text)
EVENTS = st.tuples(IDS, IDS, st.sampled_from(["rating", "click"]), st.integers(1, 5), st.none() | st.integers(0, 10**9))


@given(
    events=st.lists(EVENTS, min_size=1, max_size=8),
    genres=st.dictionaries(IDS, st.lists(VALUES, max_size=3, unique=True), max_size=4),
    cities=st.dictionaries(IDS, TEXT, max_size=4),
    names=st.tuples(TEXT, IDS.filter(lambda text: "/" not in text)),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], genres: Any, cities: Any, names: Any
) -> None:
    """Every id, title, attribute and event comes back exactly, whatever characters it is made of."""
    name, domain = names
    tables = Tables(
        Description(
            name=name,
            domains={
                domain: DomainDescription(
                    rating_min=1,
                    rating_max=5,
                    kinds={"click": Kind(value=2, weight=0.5)},
                    item_attributes={"genres": "multi"},
                )
            },
            user_attributes={"city": "categorical"},
        ),
        pl.DataFrame(
            [(user, domain, item, value, at, kind) for user, item, kind, value, at in events],
            schema=["user_id", "domain", "item_id", "value", "occurred_at", "kind"],
            orient="row",
        ),
        pl.DataFrame({"user_id": list(cities), "city": list(cities.values())}, schema={"user_id": str, "city": str}),
        pl.DataFrame(
            {
                "domain": [domain] * len(genres),
                "item_id": list(genres),
                "title": list(genres),
                "genres": ["|".join(values) for values in genres.values()],
            },
            schema=dict.fromkeys(("domain", "item_id", "title", "genres"), pl.String),
        ),
    )
    data = write(tables, tmp_path_factory.mktemp("written") / "d")
    assert data.name == name
    assert data.schema.domains[0].name == domain
    assert data.user_ids == sorted({*cities, *(user for user, *_ in events)})
    assert data.items.ids == sorted({*genres, *(item for _, item, *_ in events)})
    assert data.items.titles == data.items.ids
    read_genres = {i: row["genres"] for i, row in zip(data.items.ids, data.items.attributes, strict=True) if row}
    assert read_genres == {item: values for item, values in genres.items() if values}
    seen = data.interactions
    times = seen.times.nan_to_num(nan=-1)
    columns = (seen.users, seen.items, seen.kinds, seen.values, times)
    came_back = sorted(
        (data.user_ids[u], data.items.ids[i], data.schema.kinds[k], value, at)
        for u, i, k, value, at in zip(*(column.tolist() for column in columns), strict=True)
    )
    clicks = [(user, item, kind, 2, at) for user, item, kind, _, at in events if kind == "click"]
    in_time = sorted(events, key=lambda event: -1 if event[4] is None else event[4])
    ratings = {(event[0], event[1]): event for event in in_time if event[2] == "rating"}  # the last one counts
    assert came_back == sorted(
        (user, item, kind, value, -1 if at is None else at)
        for user, item, kind, value, at in [*clicks, *ratings.values()]
    )


def test_a_description_is_written_as_it_is_read(tmp_path: Path) -> None:
    tables = grid_tables()
    (tmp_path / "dataset.toml").write_text(format_description(tables.description))
    write(tables, tmp_path / "grid")
    assert (tmp_path / "grid" / "dataset.toml").read_text() == (tmp_path / "dataset.toml").read_text()
