"""What exploring costs beside greedy, a slate at a time: `python -m benchmarks.policies [--json PATH]`.

A slate of 10 of 3,700 and of 100,000 items, for one user of a Bayesian factor model with 16 factors; a tenth of the
items have been shown. Milliseconds of one core that `choose` takes: what an answer with the policy costs more than a
greedy one, whose scores and best items it is given. Medians, twice: of slates one after the other under one policy, as
in a domain that has one, and of slates of all policies in turn, each of which finds the caches full of the others'.
Goals, for the first: 0.3 ms for the smaller catalogue, 3 ms for the larger. Thompson sampling is measured without the
draws behind its propensities, and what these cost stands beside it; goal: 3 ms.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.engine.mixture import Mixture
from app.engine.policies.arms import Arms
from app.engine.policies.choose import Plan, choose
from app.engine.policies.linear import Lesson, LinearArms, context
from app.engine.policies.settings import Exploration
from app.engine.serving import Part, Served
from benchmarks.adaptation import random_data, random_evidence
from models.recommender import FitOptions, ItemTable
from models.registry import RECOMMENDERS

SIZES = {3_700: 0.3, 100_000: 3.0}
"""Items, and the goal in milliseconds."""
K = 10
REPETITIONS = 41
PROPENSITIES_GOAL = 3.0
SETTINGS = {
    "epsilon_greedy": {"policy": "epsilon_greedy"},
    "ucb, posterior": {"policy": "ucb", "bonus": "posterior"},
    "ucb, counts": {"policy": "ucb", "bonus": "count"},
    "thompson": {"policy": "thompson", "samples": 0},
    "lin_ucb": {"policy": "lin_ucb"},
    "lin_thompson": {"policy": "lin_thompson", "samples": 0},
}
SAMPLES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="milliseconds that a policy adds to an answer")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        figures = [row for n, goal in SIZES.items() for row in measure(n, goal)]
    print(f"{'items':>8}  {'policy':26}  {'ms':>7}  {'in turn':>7}  {'goal':>5}")
    for row in figures:
        print(f"{row['items']:>8,}  {row['policy']:26}  {row['ms']:7.3f}  {row['in turn']:7.3f}  {row['goal']:5.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def measure(n: int, goal: float) -> list[dict[str, float | str]]:
    """One row a policy."""
    part, state = fitted(n)
    mixture = Mixture([part], [state], [1.0])
    mean = part.served.recommender.means(state, part.served.table)[0]  # (n,)
    greedy = torch.topk(mean, K).indices.numpy()
    generator = np.random.default_rng(0)
    shows = generator.poisson(5, n) * (generator.random(n) < 0.1)
    judged = generator.binomial(shows, 0.5)
    arms = Arms(shows, judged, generator.binomial(judged, 0.3).astype(float))
    x = tuple(context("digest", mixture.state()[1]))
    lessons = [Lesson(int(i), x, 0.1) for i in np.flatnonzero(judged)]
    linear = {"digest": LinearArms(len(x)).learn(lessons)}
    plan = Plan(Exploration(), 1, arms, (1.0, 5.0), linear, np.arange(n))
    wanted = {name: Exploration.model_validate(settings) for name, settings in SETTINGS.items()}
    for name in ("thompson", "lin_thompson"):
        wanted[f"{name} with p̂"] = wanted[name].model_copy(update={"samples": SAMPLES})
    slates = {name: partial(_slate, replace(plan, settings=one), mean, greedy, mixture) for name, one in wanted.items()}
    alone = {
        name: statistics.median([slate(seed) for seed in range(REPETITIONS)][1:]) for name, slate in slates.items()
    }
    each = [{name: slate(seed) for name, slate in slates.items()} for seed in range(REPETITIONS)]
    in_turn = {name: statistics.median(taken[name] for taken in each[1:]) for name in slates}
    rows: list[dict[str, float | str]] = []
    for name in SETTINGS:
        told = {"ms": alone[name], "in turn": in_turn[name]}
        rows.append({"items": n, "policy": name, "goal": goal} | told)
    for name in ("thompson", "lin_thompson"):
        more = f"{name} with p̂"
        told = {"ms": alone[more] - alone[name], "in turn": in_turn[more] - in_turn[name]}
        rows.append({"items": n, "policy": f"{name}, propensities", "goal": PROPENSITIES_GOAL} | told)
    return rows


def _slate(plan: Plan, mean: torch.Tensor, greedy: NDArray[np.int64], mixture: Mixture, seed: int) -> float:
    """Milliseconds of one core that a slate takes."""
    started = time.thread_time()
    choose(replace(plan, seed=seed), mean, greedy, mixture)
    return round(1e3 * (time.thread_time() - started), 4)


def fitted(n: int) -> tuple[Part, torch.Tensor]:
    """A part with n items, those of a small fit again and again, and the state of a user with 20 ratings."""
    data = random_data()
    bayes = RECOMMENDERS["bayes"]
    recommender = bayes(bayes.Config.model_validate({"iterations": 1}), data.schema)
    with torch.enable_grad():
        table = recommender.fit(data, FitOptions()).table
    recommender.eval().requires_grad_(False)
    index = torch.arange(n) % len(table)
    noise = 0.1 * torch.randn(n, 1)
    columns = {name: column[index] for name, column in table.columns.items()}
    columns["mean"] = columns["mean"] + noise
    grown = ItemTable(columns, table.domain[index], table.trained[index])
    state = recommender.adapt(random_evidence(data, 1), table, 0)
    served = Served("bayes", "digest", recommender, grown, torch.arange(n), {}, grown, np.zeros(n, np.uint64))
    return Part("collaborative", served, 0, None), state


if __name__ == "__main__":
    main()
