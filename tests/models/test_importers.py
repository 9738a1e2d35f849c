"""Importers of two-domain and hostile data: files as their homes have them become a data set folder."""

from pathlib import Path

import pytest
import torch

from models.datasets.book_crossing import from_files as crossing
from models.datasets.description import DatasetError
from models.datasets.douban import from_files
from models.datasets.fetch import FetchError, PublicSet, Source, fetch
from models.datasets.folder import read
from models.datasets.movielens import interactions_digest
from models.datasets.sources import ByHand, LocalFolder, SourceError, WebFiles

BOOK = b"1\t1630\t4\n2\t7\t5\n"
MUSIC = b"2\t7\t3\n3\t8\t1\n"
DOUBAN = {"book.tsv": BOOK, "music.tsv": MUSIC}
CROSSING = {
    "interactions.csv": b"user_id,domain,item_id,value,occurred_at\n605,books,3,10,\n605,books,4,2,\n",
    "items.csv": b"domain,item_id,title,author,publisher,year\nbooks,3,,0,0,5\nbooks,4,,0,1,5\n",
    "users.csv": b"user_id,age_over_40,location\n605,1,9\n606,0,9\n",
}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def douban(digest: str = "") -> dict[str, PublicSet]:
    nowhere = Source(ByHand("a far place"), from_files)
    return {"douban-book-music": PublicSet((nowhere,), digest or interactions_digest(from_files(DOUBAN)))}


def test_douban_is_two_domains_whose_users_are_shared(tmp_path: Path) -> None:
    """User 2 rated book 7 and music 7, which are two items."""
    source = put(tmp_path / "raw", DOUBAN)
    fetch("douban-book-music", tmp_path / "d", source=source, sets=douban())
    data = read(tmp_path / "d")
    assert [domain.name for domain in data.schema.domains] == ["book", "music"]
    assert data.user_ids == ["1", "2", "3"]
    assert list(zip(data.items.ids, data.items.domain.tolist(), strict=True)) == [
        ("1630", 0),
        ("7", 0),
        ("7", 1),
        ("8", 1),
    ]
    assert data.interactions.values.tolist() == [4, 5, 3, 1]
    assert torch.isnan(data.interactions.times).all()


def test_other_ratings_than_those_published_are_refused_from_a_folder_too(tmp_path: Path) -> None:
    source = put(tmp_path / "raw", {**DOUBAN, "music.tsv": b"2\t7\t4\n"})
    with pytest.raises(FetchError, match="not those of the published set"):
        fetch("douban-book-music", tmp_path / "d", source=source, sets=douban())
    assert not (tmp_path / "d").exists()


def test_a_folder_without_the_files_or_with_other_ones_is_refused(tmp_path: Path) -> None:
    for name, files in (("a", {"book.tsv": BOOK}), ("b", {**DOUBAN, "book.tsv": b"one two\n"})):
        with pytest.raises(FetchError, match="do not read as expected"):
            fetch("douban-book-music", tmp_path / "d", source=put(tmp_path / name, files), sets=douban())
    with pytest.raises(FetchError, match="No such file"):
        fetch("douban-book-music", tmp_path / "d", source=tmp_path / "nothing", sets=douban())


def test_what_nobody_serves_is_asked_for_by_folder(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"a far place.*name the folder"):
        fetch("douban-book-music", tmp_path / "d", sets=douban())
    with pytest.raises(FetchError, match="no films"):
        fetch("douban-book-music", tmp_path / "d", content=tmp_path / "films.csv", sets=douban())


def test_book_crossing_keeps_its_labels(tmp_path: Path) -> None:
    sets = {"book-crossing": PublicSet((Source(ByHand(""), crossing),), interactions_digest(crossing(CROSSING)))}
    fetch("book-crossing", tmp_path / "d", source=put(tmp_path / "raw", CROSSING), sets=sets)
    data = read(tmp_path / "d")
    assert data.schema.scales()[1].tolist() == [10]
    assert data.items.attributes[0] == {"author": "0", "publisher": "0", "year": "5"}
    assert data.n_users == 2  # one of them has rated nothing


def test_a_cell_that_breaks_the_format_is_named(tmp_path: Path) -> None:
    source = put(tmp_path / "raw", {**DOUBAN, "music.tsv": b"2\t7\t9\n"})
    digest = interactions_digest(from_files({**DOUBAN, "music.tsv": b"2\t7\t9\n"}))
    with pytest.raises(DatasetError, match="outside the domain's rating scale"):
        fetch("douban-book-music", tmp_path / "d", source=source, sets=douban(digest))


def test_places_say_what_they_are(tmp_path: Path) -> None:
    assert str(WebFiles({"a": "http://one", "b": "http://two"})) == "http://one, http://two"
    (tmp_path / "folder").mkdir()
    assert LocalFolder(put(tmp_path / "raw", {"a": b"1"})).download() == {"a": b"1"}
    with pytest.raises(SourceError):
        LocalFolder(tmp_path / "nothing").download()
