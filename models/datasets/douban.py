"""Douban books and music with shared users, as a data set folder of two domains.

Published with DTCDR (F. Zhu et al., "DTCDR: A Framework for Dual-Target Cross-Domain Recommendation", CIKM 2019) and
GA-DTCDR (F. Zhu et al., "A Graphical and Attentional Framework for Dual-Target Cross-Domain Recommendation", IJCAI
2020); for research use, with a citation. 96,041 ratings of 6,777 books, 69,709 of 5,567 pieces of music; 1,566 of the
2,216 people are in both. There are neither times nor attributes: items are known by their numbers.
"""

import polars as pl

from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables
from models.datasets.movielens import KINDS
from models.datasets.sources import Files

FILES = {"book": "book.tsv", "music": "music.tsv"}
"""Domain → its file: `user⇥item⇥rating` a line, ratings 1 to 5."""


def from_files(files: Files) -> Tables:
    """The tables of `book.tsv` and `music.tsv`. Raises KeyError where one is missing, PolarsError where one is none."""
    columns = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float64}
    parts = []
    for domain, name in FILES.items():
        rows = pl.read_csv(files[name], has_header=False, separator="\t", schema=columns, quote_char=None)
        parts.append(
            rows.select(
                "user_id", pl.lit(domain).alias("domain"), "item_id", pl.col("value").cast(pl.Int64, strict=True)
            )
        )
    scale = DomainDescription(rating_min=1, rating_max=5, kinds=KINDS)
    interactions = pl.concat(parts).with_columns(occurred_at=pl.lit(None, pl.Int64))
    return Tables(
        Description(
            name="douban-book-music",
            source="Douban, published with DTCDR (CIKM 2019) and GA-DTCDR (IJCAI 2020); for research",
            domains=dict.fromkeys(FILES, scale),
        ),
        interactions,
    )
