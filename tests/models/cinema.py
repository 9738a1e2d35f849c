"""A data set folder of made-up ratings, large enough to hold an exam on: every user has 70 ratings with times."""

from pathlib import Path

import numpy as np

from models.datasets.dataset import Dataset
from models.datasets.folder import read

N_USERS, N_FILMS, N_RATINGS = 60, 120, 70
DESCRIPTION = """
name = "cinema"

[user_attributes]
job = "categorical"
age = "numeric"

[domains.films]
rating_min = 1
rating_max = 5

[domains.films.item_attributes]
genres = "multi"
"""


def write_cinema(folder: Path, seed: int = 0) -> Path:
    """Write the folder: likes follow from taste and quality, five films out of six are from before 1998."""
    random = np.random.default_rng(seed)
    taste, character = random.normal(size=(N_USERS, 2)), random.normal(size=(N_FILMS, 2))
    quality = random.normal(scale=0.6, size=N_FILMS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(DESCRIPTION)
    films = ["domain,item_id,title,genres"]
    for film in range(N_FILMS):
        year = 1999 if film % 6 == 0 else 1990
        genres = "|".join(name for name, c in zip(("crime", "music"), character[film], strict=True) if c > 0)
        films.append(f"films,f{film},Film {film} ({year}),{genres}")
    (folder / "items.csv").write_text("\n".join(films) + "\n")
    users = [f"1m_{user},{('cook', 'nurse')[user % 2]},{20 + user}" for user in range(N_USERS)]
    (folder / "users.csv").write_text("\n".join(["user_id,job,age", *users]) + "\n")
    events = ["user_id,domain,item_id,value,occurred_at"]
    for user in range(N_USERS):
        for n, film in enumerate(random.permutation(N_FILMS)[:N_RATINGS]):
            liking = 3.3 + quality[film] + 0.6 * taste[user] @ character[film] + 0.4 * random.normal()
            events.append(f"1m_{user},films,f{film},{np.clip(round(liking), 1, 5)},{1_000_000 + 1000 * user + n}")
    (folder / "interactions.csv").write_text("\n".join(events) + "\n")
    return folder


def read_cinema(folder: Path) -> Dataset:
    """The same as a data set."""
    return read(write_cinema(folder))
