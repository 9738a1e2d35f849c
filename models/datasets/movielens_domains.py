"""MovieLens split into two catalogues by main genre: real, timed, titled two-domain data that everybody can fetch.

`thrills` has the films whose main genre is action, adventure, crime, horror, mystery, sci-fi, thriller, war, western or
film-noir; `hearts` has the rest. MovieLens lists a film's genres by the alphabet, so the first alone says little: a
film's side is the one that most of its genres are on, and on a tie that of the first listed. Action|Drama|Romance and
Drama|Thriller are hearts, Crime|Drama is thrills. A film without genres is in hearts.
"""

import random
from dataclasses import replace

import polars as pl

from models.datasets.folder import Tables
from models.datasets.movielens import DOMAIN
from models.datasets.schema import MULTI_SEPARATOR

THRILLS, HEARTS = "thrills", "hearts"
THRILLING = frozenset(
    ["Action", "Adventure", "Crime", "Horror", "Mystery", "Sci-Fi", "Thriller", "War", "Western", "Film-Noir"]
)


def side_of(genres: list[str]) -> str:
    """The domain of a film with these genres, in the order MovieLens lists them.

    >>> side_of(["Action", "Drama", "Romance"]), side_of(["Crime", "Drama"]), side_of([])
    ('hearts', 'thrills', 'hearts')
    """
    thrilling = [genre in THRILLING for genre in genres]
    balance = 2 * sum(thrilling) - len(thrilling)
    decided = balance > 0 or (balance == 0 and any(thrilling[:1]))
    return THRILLS if decided else HEARTS


def split_by_genre(tables: Tables, hidden_share: float = 0.0, seed: int = 0) -> Tables:
    """The one domain `movies` as the two domains `thrills` and `hearts`.

    `hidden_share` of the users (0 to 1; which ones, `seed` decides) become two users without a link, `<id>@thrills` and
    `<id>@hearts`: at 1.0 the domains share nobody. The others keep one id in both. Every user keeps their attributes.
    """
    if not 0 <= hidden_share <= 1:
        raise ValueError(f"hidden_share must lie between 0 and 1, not {hidden_share}")
    assert tables.users is not None
    assert tables.items is not None
    films = tables.items.select("item_id", genres=pl.col("genres").fill_null(""))
    sides = {item_id: side_of([g for g in genres.split(MULTI_SEPARATOR) if g]) for item_id, genres in films.iter_rows()}
    hidden = _hidden_users(tables.users["user_id"].to_list(), hidden_share, seed)

    side = pl.col("item_id").replace_strict(sides)
    known_there = pl.col("user_id") + pl.lit("@") + pl.col("domain")
    disguised = pl.when(pl.col("user_id").is_in(hidden)).then(known_there).otherwise("user_id").alias("user_id")
    interactions = tables.interactions.with_columns(domain=side)
    people = interactions.select("user_id", "domain").unique(maintain_order=True)
    seen = people.select(disguised, original="user_id").unique(maintain_order=True)
    users = seen.join(tables.users.rename({"user_id": "original"}), on="original", maintain_order="left").drop(
        "original"
    )
    domain = tables.description.domains[DOMAIN]
    return replace(
        tables,
        description=tables.description.model_copy(update={"domains": {THRILLS: domain, HEARTS: domain}}),
        interactions=interactions.with_columns(disguised),
        users=users,
        items=tables.items.with_columns(domain=side),
    )


def _hidden_users(users: list[str], share: float, seed: int) -> list[str]:
    return random.Random(seed).sample(sorted(users), round(share * len(users)))
