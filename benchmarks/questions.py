"""Do the service's questions tell more? `python -m benchmarks.questions --data DIR [--choose] [--json PATH]`.

Cold users of MovieLens-1M: those of `kshot` (named by the published draws where WARMSTART_RESEARCH_DATA has them), whom
the fit has not seen. A newcomer of whom nothing but the attributes is known is asked five questions: about an item
that they rated they answer with their rating, about any other "don't know". Then `bayes`, adapted on the answers,
foretells ten other ratings of theirs, drawn by seed, which were not asked about. Six draws of ten for everybody.

    service   the engine's questions, each chosen after the answers before it
    popular   the five items that most people rated
    random    five items drawn from those that anybody rated

RMSE of the ratings clipped to the scale, NDCG@10 of the ten items; 95 % intervals of the differences by a bootstrap
over users, paired. `--choose` measures constants of the rule on validation users in place of the cold ones: a random
fifth of the warm users, and a fit that has not seen them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.engine.answering import Known, Padded
from app.engine.catalogue import Catalogue, CatalogueItem, Shelf
from app.engine.questions import RULE, Query, Rule, choose_questions
from app.engine.serving import Part, Served, ServedDomain
from models.datasets.dataset import Dataset
from models.datasets.folder import read
from models.datasets.schema import Attributes
from models.evaluation.draws import draw_by_seed
from models.evaluation.exam import Exam
from models.evaluation.metrics import Floats, gain, ndcg_at, rank
from models.evaluation.protocols import SHOTS, ProtocolOptions, kshot
from models.evaluation.served import decode_attributes
from models.evaluation.significance import Interval, paired_bootstrap, per_user
from models.recipes import load
from models.recommender import FitOptions, ItemTable, Recommender
from models.registry import RECOMMENDERS

N_QUESTIONS = 5
QUERY_SIZE = 10
N_DRAWS = 6
VALIDATION_SHARE = 0.2
BATCH = 256
RULES = [Rule(crowd, level) for crowd in (0.5, 1.0) for level in (0.2, 0.5, 1.0)]
"""What `--choose` chooses among."""


@dataclass(frozen=True)
class Newcomers:
    """Who is asked, what they would answer, and what is foretold."""

    users: Tensor
    """(B,) index of the user in the data."""
    attributes: list[Attributes]
    items: Tensor
    """(B, Q) the items to be foretold."""
    values: Tensor
    """(B, Q) what they were given."""
    opinions: list[dict[int, float]]
    """Item → rating of everything else that they rated."""

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Outcome:
    """What five questions to each newcomer led to."""

    answered: Floats
    """(B,) questions that got a rating."""
    squares: Floats
    """(B,) sum of squared errors of the ten ratings."""
    ndcg: Floats
    """(B,)."""

    @property
    def rmse(self) -> float:
        return float(np.sqrt(self.squares.mean() / QUERY_SIZE))


Asker = Callable[[int, dict[int, float], list[int]], int]
"""(newcomer, answers so far, items that they do not know) → the next item to ask about."""


def main() -> None:
    parser = argparse.ArgumentParser(description="do the service's questions tell more than others?")
    parser.add_argument("--data", type=Path, required=True, help="data set folder")
    parser.add_argument("--draws", type=Path, help="file of published draws")
    parser.add_argument("--choose", action="store_true", help="compare constants of the rule on validation users")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    exam = kshot(read(arguments.data), ProtocolOptions(draws=arguments.draws))
    training, newcomers = validation(exam.training) if arguments.choose else cold(exam)
    recipe = load("bayes")
    kind = RECOMMENDERS[recipe.recommender]
    recommender = kind(kind.Config.model_validate(dict(recipe.settings)), training.schema)
    table = recommender.fit(training, FitOptions()).table
    recommender.eval().requires_grad_(False)
    counts = torch.bincount(training.interactions.items, minlength=training.n_items)
    domain = offline(training, recommender, table)
    askers: dict[str, Asker] = {
        "popular": in_order(newcomers, counts.argsort(descending=True, stable=True)),
        "random": in_order(newcomers, counts.nonzero().flatten(), np.random.default_rng(0)),
    }
    for rule in RULES if arguments.choose else [RULE]:
        name = f"service, crowd {rule.crowd:g}, level {rule.level:g}" if arguments.choose else "service"
        askers[name] = by_service(domain, newcomers, rule)
    outcomes: dict[str, Outcome] = {}
    rows: list[dict[str, Any]] = []
    print(f"{len(newcomers)} conversations with {len(newcomers.users.unique())} users of {training.name}")
    print(f"{'questions':32} {'answered':>8} {'RMSE':>7} {'NDCG@10':>8}")
    for name, asker in askers.items():
        started = time.perf_counter()
        outcomes[name] = converse(newcomers, asker, domain)
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {"questions": name, "seconds": round(seconds, 1)} | figures(outcomes[name])
        rows.append(row)
        print(f"{name:32} {row['answered']:8.2f} {row['rmse']:7.4f} {row['ndcg']:8.4f}", flush=True)
    for row in rows[2:]:
        ours = outcomes[row["questions"]]
        for name in ("popular", "random"):
            rmse, ndcg = compare(ours, outcomes[name], newcomers)
            row[f"less {name}"] = {"rmse": rmse.model_dump(), "ndcg": ndcg.model_dump()}
            print(f"{row['questions']} less {name}: RMSE {told(rmse)}, NDCG@10 {told(ndcg)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def cold(exam: Exam) -> tuple[Dataset, Newcomers]:
    """What training may see, and the cold users of the protocol, with what they think of items that it has."""
    known = torch.isin(exam.data.interactions.items, exam.training.interactions.items.unique())
    return exam.training, newcomers_of(exam.data.where(known), exam.groups[0].users.unique())


def validation(data: Dataset) -> tuple[Dataset, Newcomers]:
    """The data without a fifth of its users, and these as if they were cold."""
    training, held = data.split_users(VALIDATION_SHARE, seed=1)
    return training, newcomers_of(data, held)


def newcomers_of(data: Dataset, among: Tensor) -> Newcomers:
    """Those of some users who have as many ratings as `kshot` wants, each with several draws of ten to be foretold."""
    seen, opinions = data.interactions, []
    drawn = [d for seed in range(N_DRAWS) for d in draw_by_seed(data, among, 0, QUERY_SIZE, max(SHOTS), seed)]
    users, rows = torch.tensor([draw.user for draw in drawn]), torch.stack([draw.query for draw in drawn])
    for draw in drawn:
        own = torch.arange(int(data.offsets[draw.user]), int(data.offsets[draw.user + 1]))
        own = own[~torch.isin(own, draw.query)]
        opinions.append(dict(zip(seen.items[own].tolist(), seen.values[own].tolist(), strict=True)))
    attributes = [decode_attributes(data.schema.user_attributes, row) for row in data.user_attributes[users]]
    return Newcomers(users, attributes, seen.items[rows], seen.values[rows], opinions)


def offline(data: Dataset, recommender: Recommender, table: ItemTable) -> ServedDomain:
    """The domain as the engine serves it: every item of the data at its own index."""
    spec = data.schema.domains[0]
    items = [
        CatalogueItem(i + 1, spec.name, item_id, title, attributes, True)
        for i, (item_id, title, attributes) in enumerate(
            zip(data.items.ids, data.items.titles, data.items.attributes, strict=True)
        )
    ]
    catalogue, _ = Catalogue().followed(1, [spec], items)
    every = torch.arange(len(items))
    served = Served("bayes", "", recommender, table, every, {}, table, np.zeros(len(items), np.uint64))
    shelf = catalogue.shelves[spec.name]
    return ServedDomain(shelf, catalogue, (Part.of("collaborative", served, shelf),), None, None)


def in_order(newcomers: Newcomers, items: Tensor, generator: np.random.Generator | None = None) -> Asker:
    """The first items that are not to be foretold; in an order of its own for everybody where there is a generator."""
    orders = []
    for barred in newcomers.items.tolist():
        order = items.numpy() if generator is None else generator.permutation(items.numpy())
        orders.append([item for item in order[: N_QUESTIONS + QUERY_SIZE].tolist() if item not in barred])
    return lambda b, told, unknown: orders[b][len(told) + len(unknown)]


def by_service(domain: ServedDomain, newcomers: Newcomers, rule: Rule) -> Asker:
    """The engine asks, in a conversation of its own with everybody."""
    counts = np.zeros((len(domain.shelf.items), 3))

    def ask(b: int, told: dict[int, float], unknown: list[int]) -> int:
        known = known_of(told, newcomers.attributes[b])
        # What is to be foretold is not there to be asked about, which says nothing of whether this user knows it.
        shelf = Shelf(domain.shelf.domain, 0, domain.shelf.items, domain.shelf.positions)
        shelf.__dict__["unavailable"] = newcomers.items[b].numpy()
        here = ServedDomain(shelf, domain.catalogue, domain.parts, None, None)
        query = Query(here, known, len(told), known.positions, np.array(unknown, np.int64), 1, counts)
        return choose_questions(query, rule).asked[0].local

    return ask


def known_of(told: dict[int, float], attributes: Attributes) -> Known:
    """Answers as evidence."""
    n = len(told)
    return Known(
        np.array(list(told), np.int64),
        np.array(list(told.values()), np.float32),
        np.ones(n, np.float32),
        np.full(n, np.nan),
        ["rating"] * n,
        attributes,
    )


def converse(newcomers: Newcomers, asker: Asker, domain: ServedDomain) -> Outcome:
    """Ask everybody five questions, adapt on the answers, foretell the ten."""
    answers = []
    for b in range(len(newcomers)):
        told: dict[int, float] = {}
        unknown: list[int] = []
        for _ in range(N_QUESTIONS):
            item = asker(b, told, unknown)
            opinion = newcomers.opinions[b].get(item)
            if opinion is None:
                unknown.append(item)
            else:
                told[item] = opinion
        answers.append(told)
    predicted = torch.cat([foretell(newcomers, answers, index, domain) for index in batches(answers)])
    truth, mean = newcomers.values.double().numpy(), predicted.double().numpy()
    spec = domain.shelf.domain
    squares = np.square(np.clip(mean, spec.rating_min, spec.rating_max) - truth).sum(1)
    ranked = np.take_along_axis(truth, rank(mean, newcomers.items.numpy(), np.ones_like(mean, dtype=np.bool_)), 1)
    ndcg = ndcg_at(gain(ranked), gain(ranked), QUERY_SIZE)
    return Outcome(np.array([float(len(told)) for told in answers]), squares, ndcg)


def batches(answers: list[dict[int, float]]) -> Iterator[Tensor]:
    """Places of the conversations, some at a time."""
    yield from torch.arange(len(answers)).split(BATCH)


@torch.no_grad()
def foretell(newcomers: Newcomers, answers: list[dict[int, float]], index: Tensor, domain: ServedDomain) -> Tensor:
    """Ratings (b, Q) to expect of the ten items of some newcomers."""
    (part,) = domain.parts
    recommender, table = part.served.recommender, part.served.table
    known = [known_of(answers[b], newcomers.attributes[b]) for b in index.tolist()]
    states = recommender.adapt(Padded.of(known).for_table(part.served), table, part.target)
    return recommender.means(states, table).gather(1, newcomers.items[index])


def compare(ours: Outcome, theirs: Outcome, newcomers: Newcomers) -> tuple[Interval, Interval]:
    """What we have over them in RMSE and in NDCG; all conversations with one user stand or fall together."""
    users, intervals = newcomers.users.numpy(), []
    for mine, other, n, statistic in (
        (ours.squares, theirs.squares, QUERY_SIZE, "root_mean"),
        (ours.ndcg, theirs.ndcg, 1, "mean"),
    ):
        _, system, counts = per_user(users, mine, np.full(len(users), float(n)))
        _, baseline, _ = per_user(users, other, counts=np.ones(len(users)))
        intervals.append(paired_bootstrap(system, baseline, counts, statistic))  # type: ignore[arg-type]
    return intervals[0], intervals[1]


def figures(outcome: Outcome) -> dict[str, float]:
    """Means over the conversations."""
    return {
        "answered": round(float(outcome.answered.mean()), 4),
        "rmse": round(outcome.rmse, 5),
        "ndcg": round(float(outcome.ndcg.mean()), 5),
    }


def told(interval: Interval) -> str:
    """A difference with its interval."""
    return f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


if __name__ == "__main__":
    main()
