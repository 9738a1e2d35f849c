"""A policy through a season of the real service: an application of its own, with its own checkpoint and SQLite file.

Visitors come in crowds, whose requests are answered together. Each sends what they have rated so far, sees a slate, and
rates about half of it; the service stores the ratings with their slate ids, so that they count in the arms. The clock
is the rounds': what the service does every few seconds (counting anew, reading arms, learning films' rows from all that
was said of them) it does here every so many rounds, whatever the machine.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from app.api.requests import InteractionIn
from app.engine.policies.settings import Exploration
from app.main import create_app
from app.services import ingest, people, recommend, stock
from app.services.installation import Installation
from app.services.recommend import Who, Wish
from app.settings import Settings
from app.storage.records import NewDomain, NewItem
from benchmarks.simulator.season import PLACES, Season
from models import checkpoint
from models.recommender import FitOptions
from models.training.train import train

CROWD = 100
"""Visitors who come at the same time; after each crowd counts and arms are read again."""
LEARN_EVERY = 500
"""Rounds between two times that a checkpoint's rows are learnt."""
LEARN_RATINGS = 50
"""The newest of a film, that its row is learnt from: enough where the content says little, and cheap."""
POINT = 100
"""Rounds that a point of the curves is made of."""
LONG = 1e9
"""Seconds: never."""
POLICIES: dict[str, dict[str, Any]] = {
    "random": {"policy": "epsilon_greedy", "epsilon": 1.0},
    "greedy": {"policy": "greedy"},
    "epsilon_greedy": {"policy": "epsilon_greedy"},
    "ucb": {"policy": "ucb"},
    "ucb, scale 0.1": {"policy": "ucb", "scale": 0.1},
    "thompson": {"policy": "thompson", "samples": 0},
    "thompson, scale 0.25": {"policy": "thompson", "samples": 0, "scale": 0.25},
    "lin_ucb": {"policy": "lin_ucb"},
    "lin_thompson": {"policy": "lin_thompson", "samples": 0},
}
"""With the settings that they have by default, and two with the best of the scales 1, 0.5, 0.25, 0.1 and 0.05 in one
`opening` that is none of the ten. The draws behind propensities change no slate and are left out."""


class Curve(BaseModel):
    """What a policy did in a season, by points of `POINT` rounds."""

    regret: list[float]
    """A place: what the best slate of films not yet rated by the visitor would have earned, less what this one does."""
    reward: list[float]
    """A place: what it does earn, noise aside."""
    shown: list[float]
    """Share of the films there are that have been shown so far."""
    new_shown: list[float]
    """The same of the films that came halfway, once they are there."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating that a visitor sends along."""

    item_id: str
    value: float
    kind: str = "rating"
    domain: str | None = None
    occurred_at: float | None = None


@dataclass
class _Ledger:
    """What happened so far."""

    season: Season
    told: list[list[Rated]]
    open: np.ndarray[Any, np.dtype[np.bool_]]
    """(V, n) films there are that the visitor has not rated."""
    shows: np.ndarray[Any, np.dtype[np.int64]]
    n_there: int
    regret: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    new_shown: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, season: Season) -> "_Ledger":
        """At the beginning."""
        is_open = np.zeros(season.worth.shape, bool)
        is_open[:, : season.n_first] = True
        shows = np.zeros(len(season.films), np.int64)
        return cls(season, [[] for _ in season.visitors], is_open, shows, season.n_first)

    def open_all(self) -> None:
        """The new films have come."""
        self.open[:, self.season.n_first :] = True
        self.n_there = len(self.season.films)

    def enter(self, visitor: int, films: list[int]) -> None:
        """A slate was shown."""
        worth = self.season.worth[visitor]
        best = np.sort(worth[self.open[visitor]])[-PLACES:].mean()
        earned = worth[films].mean()
        self.regret.append(float(best - earned))
        self.reward.append(float(earned))
        self.shows[films] += 1
        self.shown.append(np.count_nonzero(self.shows) / self.n_there)
        new = self.shows[self.season.n_first :]
        self.new_shown.append(np.count_nonzero(new) / max(len(new), 1))

    def rate(self, visitor: int, film: int) -> float:
        """What the visitor gives the film, which they know from now on."""
        value = float(self.season.ratings[visitor, film])
        self.open[visitor, film] = False
        self.told[visitor].append(Rated(self.season.films.ids[film], value))
        return value

    def curve(self) -> Curve:
        """Means, and counts where they stood, over points."""
        n = len(self.regret) // POINT * POINT
        regret, reward = (np.reshape(one[:n], (-1, POINT)).mean(1) for one in (self.regret, self.reward))
        shown, new_shown = (one[POINT - 1 : n : POINT] for one in (self.shown, self.new_shown))
        return Curve(
            regret=[round(float(x), 6) for x in regret],
            reward=[round(float(x), 6) for x in reward],
            shown=[round(x, 4) for x in shown],
            new_shown=[round(x, 4) for x in new_shown],
        )


def prepare(season: Season, folder: Path, seed: int) -> None:
    """Train the season's checkpoint into a folder, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bayes"
    if season.history is None or path.exists():
        return
    nobody = season.history.interactions.users[:0]
    made = train("bayes", {}, season.history, FitOptions(seed=seed), held=nobody)
    told: dict[str, Any] = {"metrics": {}, "seed": seed, "fit_seconds": made.seconds, "code_version": "simulator"}
    checkpoint.save(path, made.recommender, made.fitted, season.history, **told)


async def play(season: Season, policy: Exploration, checkpoints: Path, seed: int, starting: asyncio.Lock) -> Curve:
    """The whole season under a policy. Several may be played at once, each with a service of its own; `starting` lets
    them start one by one, for Alembic keeps what it is at in global variables."""
    with tempfile.TemporaryDirectory(prefix="warmstart-simulator-") as folder:
        settings = Settings(
            data_dir=Path(folder),
            checkpoint_dir=checkpoints,
            device="cpu",
            arms_seconds=0,
            live_counts_seconds=LONG,
            learn_seconds=LONG,
            learn_ratings=LEARN_RATINGS,
            upkeep_seconds=LONG,
            log_level="warning",
        )
        app = create_app(settings)
        async with AsyncExitStack() as running:
            async with starting:
                await running.enter_async_context(app.router.lifespan_context(app))
            return await _play(season, policy, app.state.installation, seed)


async def _play(season: Season, policy: Exploration, installation: Installation, seed: int) -> Curve:
    domain = season.domain.name
    visitors = {f"visitor-{v}": dict(attributes) for v, attributes in enumerate(season.visitors)}
    await people.put(installation, visitors)
    if season.history is None:
        await stock.put_domain(installation, NewDomain(domain, season.domain.rating_min, season.domain.rating_max))
        await _put_films(installation, season, range(season.n_first))
    ledger, number = _Ledger.of(season), {film: i for i, film in enumerate(season.films.ids)}
    rounds = len(season.arrivals)
    seeds = np.random.default_rng(seed).integers(1 << 48, size=rounds).tolist()
    for start in range(0, rounds, CROWD):
        if start == rounds // 2 // CROWD * CROWD:
            await _put_films(installation, season, range(season.n_first, len(season.films)))
            ledger.open_all()
        await _count(installation, domain)
        crowd = season.arrivals[start : start + CROWD].tolist()
        answers = await asyncio.gather(
            *[_ask(installation, ledger, v, policy, seeds[start + i]) for i, v in enumerate(crowd)]
        )
        events: list[InteractionIn] = []
        for i, (visitor, answer) in enumerate(zip(crowd, answers, strict=True)):
            films = [number[item["item_id"]] for item in answer["items"]]
            ledger.enter(visitor, films)
            events += [
                _event(domain, visitor, season.films.ids[film], ledger.rate(visitor, film), answer["slate_id"])
                for film, rates in zip(films, season.rates[start + i], strict=True)
                if rates
            ]
        await ingest.ingest(installation, events)
        if (start + CROWD) % LEARN_EVERY == 0 and season.history is not None:
            await installation.learner.catch_up(LONG)
    return ledger.curve()


async def _ask(installation: Installation, ledger: _Ledger, visitor: int, policy: Exploration, seed: int) -> Any:
    who = Who(attributes=ledger.season.visitors[visitor], support=tuple(ledger.told[visitor]))
    return await recommend.recommend(
        installation, ledger.season.domain.name, who, Wish(k=PLACES, exploration=policy, seed=seed)
    )


def _event(domain: str, visitor: int, item_id: str, value: float, slate_id: str) -> InteractionIn:
    return InteractionIn(user_id=f"visitor-{visitor}", domain=domain, item_id=item_id, value=value, slate_id=slate_id)


async def _put_films(installation: Installation, season: Season, which: range) -> None:
    films = season.films
    new = [(season.domain.name, NewItem(films.ids[i], films.titles[i], films.attributes[i])) for i in which]
    if new:
        await stock.put_items(installation, new)


async def _count(installation: Installation, domain: str) -> None:
    """Have live counts read again, where the domain goes by them, and not again before the next crowd."""
    if installation.runtime.now.domains[domain].fallback:
        installation.settings.live_counts_seconds = 0
        await installation.refresh_counts(domain)
        installation.settings.live_counts_seconds = LONG
