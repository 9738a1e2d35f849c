"""Fetching: both forms of MovieLens give the same tables, sources are tried in turn, what they send is checked."""

import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.datasets import movielens
from models.datasets.description import DatasetError
from models.datasets.fetch import FetchError, PublicSet, Source, fetch
from models.datasets.folder import read
from models.datasets.movielens_domains import split_by_genre
from models.datasets.sources import Archive, SourceError, unzipped

# Invented films and people in the layouts of the real files; MovieLens itself may not be redistributed.
FLAGS = {"Comedy": "0|0|0|0|0|1", "Crime|Drama": "0|0|0|0|0|0|1|0|1", "unknown": "1"}


def _flags(genres: str) -> str:
    return (FLAGS[genres] + "|0" * 19)[:37]


ARCHIVE_100K = {
    "u.data": b"3\t1\t4\t881250949\n1\t2\t5\t891717742\n3\t2\t1\t878887116\n",
    "u.user": b"1|24|M|technician|85711\n3|60|F|writer|00000\n",
    "u.item": "\n".join(
        [
            f"1|Café Quiet (1995)|01-Jan-1995||http://films/1|{_flags('Comedy')}",
            f"2|Loud: A Second (1994) Part (V)|01-Jan-1994||http://films/2|{_flags('Crime|Drama')}",
            f"3|unknown||||{_flags('unknown')}",
        ]
    ).encode("latin-1"),
}
PACKAGE_100K = {
    "ml-100k.inter": (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        b"1\t2\t5\t891717742\n3\t2\t1\t878887116\n3\t1\t4\t881250949\n"
    ),
    "ml-100k.user": (
        b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        b"1\t24\tM\ttechnician\t85711\n3\t60\tF\twriter\t00000\n"
    ),
    "ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tCafé Quiet\t1995\tComedy\n2\tLoud: A Second (1994) Part\tV\tCrime Drama\n3\tunkonwn\tunkonwn\tunknown\n"
    ).encode(),
}
ARCHIVE_1M = {
    "ratings.dat": b"1::12::5::978300760\n2::11::3::978300000\n",
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
    "movies.dat": "11::Déjà (1997)::Drama|Romance\n12::Gun, The (1990)::Action\n".encode("latin-1"),
}
PACKAGE_1M = {
    "ml-1m.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n"
        "1m_2\tDéjà (1997)\t3\t978300000\r\n1m_1\tGun, The (1990)\t5\t978300760\r\n"
    ).encode(),
    "ml-1m.user": (
        b"user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\r\n"
        b"1m_1\t1\tF\t10\t48067\r\n1m_2\t56\tM\t16\t70072\r\n"
    ),
    "ml-1m.item": (
        "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\r\n"
        "Déjà (1997)\tDéjà\t1997\tDrama Romance\r\nGun, The (1990)\tGun, The\t1990\tAction\r\n"
    ).encode(),
}


def zipped(files: dict[str, bytes], folder: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return content.getvalue()


class _Archives(http.server.BaseHTTPRequestHandler):
    content = {"/ml-100k.zip": zipped(ARCHIVE_100K, "ml-100k"), "/noise.zip": b"<html>not today</html>"}

    def do_GET(self) -> None:
        found = self.content.get(self.path)
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def home() -> Iterator[str]:
    """The address of a server that has the made-up archive."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Archives) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def dead() -> str:
    """An address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/ml-100k.zip"


DIGEST = movielens.interactions_digest(movielens.from_100k_archive(ARCHIVE_100K))


def sets(*urls: str, digest: str = DIGEST) -> dict[str, PublicSet]:
    sources = tuple(Source(Archive(url, "ml-100k"), movielens.from_100k_archive) for url in urls)
    return {"movielens-100k": PublicSet(sources, digest)}


def test_both_forms_of_100k_give_the_same() -> None:
    archive, package = movielens.from_100k_archive(ARCHIVE_100K), movielens.from_100k_package(PACKAGE_100K)
    assert archive.description == package.description
    assert archive.users is not None
    assert archive.items is not None
    assert archive.users.equals(package.users)
    assert archive.items.equals(package.items)
    assert movielens.interactions_digest(archive) == movielens.interactions_digest(package)
    assert archive.users.rows() == [("1", 24, "18-24", "M", "technician"), ("3", 60, "56+", "F", "writer")]
    assert archive.items.rows() == [
        ("movies", "1", "Café Quiet (1995)", 1995, "1990s", "Comedy"),
        ("movies", "2", "Loud: A Second (1994) Part (V)", 1994, "1990s", "Crime|Drama"),
        ("movies", "3", "unknown", None, None, ""),
    ]


def test_both_forms_of_1m_give_the_same() -> None:
    archive, package = movielens.from_1m_archive(ARCHIVE_1M), movielens.from_1m_package(PACKAGE_1M)
    assert archive.description == package.description
    assert archive.users is not None
    assert archive.items is not None
    assert archive.users.equals(package.users)
    assert archive.items.equals(package.items)
    assert movielens.interactions_digest(archive) == movielens.interactions_digest(package)
    assert archive.users.rows() == [("1", "under 18", "F", "K-12 student"), ("2", "56+", "M", "self-employed")]
    assert archive.interactions.row(0) == ("1", "movies", "Gun, The (1990)", 5, 978300760)


def test_the_next_source_is_tried(tmp_path: Path, home: str, dead: str) -> None:
    """Nobody there, not found, no archive: each is passed over, and the data is had from the source that has it."""
    public = sets(dead, f"{home}/gone.zip", f"{home}/noise.zip", f"{home}/ml-100k.zip")
    stages: list[str] = []
    fetch("movielens-100k", tmp_path / "d", lambda stage, done, metrics: stages.append(stage), sets=public)
    data = read(tmp_path / "d")
    assert (data.n_users, data.n_items, len(data.interactions)) == (2, 3, 3)
    assert stages[-1] == "writing"


def test_other_ratings_than_the_published_ones_are_refused(tmp_path: Path, home: str) -> None:
    public = sets(f"{home}/ml-100k.zip", digest="0" * 64)
    with pytest.raises(FetchError, match="not those of the published set"):
        fetch("movielens-100k", tmp_path / "d", sets=public)
    assert not (tmp_path / "d").exists()


def test_where_no_source_answers_each_reason_is_given(tmp_path: Path, home: str, dead: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch("movielens-100k", tmp_path / "d", sets=sets(dead, f"{home}/gone.zip", f"{home}/noise.zip"))
    assert dead in str(caught.value)
    assert "404" in str(caught.value)
    assert "not a zip file" in str(caught.value)


def test_a_second_fetch_returns_at_once(tmp_path: Path, home: str, dead: str) -> None:
    """It asks no source any more; the same folder for another data set is refused."""
    fetch("movielens-100k", tmp_path / "d", sets=sets(f"{home}/ml-100k.zip"))
    fetch("movielens-100k", tmp_path / "d", sets=sets(dead))
    with pytest.raises(FetchError, match="holds the data set movielens-100k"):
        fetch("movielens-100k-domains", tmp_path / "d", sets=sets(dead))


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, home: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FetchError, match="exists"):
        fetch("movielens-100k", tmp_path, sets=sets(f"{home}/ml-100k.zip"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_domains_share_their_users(tmp_path: Path, home: str) -> None:
    """Crime|Drama is a tie that crime, listed first, decides; a film without genres is in hearts."""
    fetch("movielens-100k-domains", tmp_path / "d", sets=sets(f"{home}/ml-100k.zip"))
    data = read(tmp_path / "d")
    assert [domain.name for domain in data.schema.domains] == ["thrills", "hearts"]
    assert data.items.ids == ["2", "1", "3"]
    assert data.items.domain.tolist() == [0, 1, 1]
    assert data.user_ids == ["1", "3"]


def test_hidden_identities_share_nobody(tmp_path: Path, home: str) -> None:
    """With everybody hidden, a user of both domains is two users, each with the person's attributes."""
    fetch("movielens-100k-domains", tmp_path / "d", hidden_share=1.0, sets=sets(f"{home}/ml-100k.zip"))
    data = read(tmp_path / "d")
    assert data.name == "movielens-100k-domains-hidden-1"
    assert data.user_ids == ["1@thrills", "3@hearts", "3@thrills"]
    assert data.user_attributes[1].equal(data.user_attributes[2])


def test_the_share_that_is_hidden_is_exact_and_seeded() -> None:
    tables = movielens.from_1m_archive(ARCHIVE_1M)
    halves = [split_by_genre(tables, 0.5, seed).interactions["user_id"].to_list() for seed in (1, 1, 2, 3, 4, 5)]
    assert halves[0] == halves[1]
    assert all(sum("@" in user for user in half) == 1 for half in halves)
    assert len({tuple(half) for half in halves}) == 2


def test_one_domain_has_no_identity_to_hide(tmp_path: Path, dead: str) -> None:
    with pytest.raises(FetchError, match="one domain"):
        fetch("movielens-100k", tmp_path / "d", hidden_share=0.5, sets=sets(dead))


CONTENT = """title,mpaa,genres,director,writer,actors,plot
Café Quiet (1995),PG,Comedy|Fantasy,Ann A,,Bo B|Cy C,"A café, quiet."
Another Film (2001),R,Drama,,,,
"""


def test_richer_content_is_merged_by_title(tmp_path: Path, home: str) -> None:
    """Films that the file has take its genres; the others keep their own."""
    (tmp_path / "content.csv").write_text(CONTENT)
    fetch("movielens-100k", tmp_path / "d", content=tmp_path / "content.csv", sets=sets(f"{home}/ml-100k.zip"))
    data = read(tmp_path / "d")
    assert data.name == "movielens-100k-content"
    assert data.items.attributes[0] == {
        "year": 1995,
        "decade": "1990s",
        "genres": ["Comedy", "Fantasy"],
        "mpaa": "PG",
        "director": ["Ann A"],
        "actors": ["Bo B", "Cy C"],
        "plot": "A café, quiet.",
    }
    assert data.items.attributes[1]["genres"] == ["Crime", "Drama"]
    assert data.items.content.texts[0] == "Café Quiet (1995) A café, quiet."


def test_content_of_other_films_is_refused(tmp_path: Path, home: str) -> None:
    (tmp_path / "content.csv").write_text(CONTENT.replace("Café", "Bar"))
    with pytest.raises(DatasetError, match=r"content\.csv: it has none of the films"):
        fetch("movielens-100k", tmp_path / "d", content=tmp_path / "content.csv", sets=sets(f"{home}/ml-100k.zip"))


def test_only_the_wanted_folder_is_unzipped() -> None:
    content = zipped({"a.txt": b"1", "deeper/b.txt": b"2", "../c.txt": b"3"}, "wanted")
    assert unzipped(content, "wanted", "x") == {"a.txt": b"1"}
    with pytest.raises(SourceError, match="x is not a zip file"):
        unzipped(content[:50], "wanted", "x")


@pytest.mark.slow
def test_movielens_100k_for_real(tmp_path: Path) -> None:
    """From whichever source answers: 100,000 ratings of 943 users and 1,682 films, as published."""
    try:
        fetch("movielens-100k", tmp_path / "d")
    except FetchError as error:
        pytest.skip(str(error))
    data = read(tmp_path / "d")
    assert (data.n_users, data.n_items, len(data.interactions)) == (943, 1682, 100_000)
    assert data.items.titles[data.items.ids.index("1")] == "Toy Story (1995)"
    assert float(data.interactions.values.double().mean()) == pytest.approx(3.52986)
