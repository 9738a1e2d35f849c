"""What adapting to a newcomer costs: `python -m benchmarks.adaptation [--json PATH]`.

The textbook model: towers 64-64-32, predictor 64-64-64-1; a user has K = 20 ratings, the inner loop takes 5 steps, then
3,700 items are scored and the best 10 taken. Weights are random; one thread, medians of interleaved repetitions, in µs
a user:

    tutorial     how it is usually written: for each user a deep copy of the model, five steps of torch's SGD on its
                 predictor, the whole model in every forward pass
    with rows    the same loop by someone who keeps the item tower's rows, as we do
    predictor    `maml` with adapt = predictor: all users at once, backpropagation by hand
    head         `maml` with its closed-form head, means only
    head + std   the same with the posterior standard deviation of every item's score
    bayes        the Bayesian factor model with 32 factors, std included

Beside each of ours stands its arithmetic floor: the same number of floating-point operations as plain batched matrix
products of the same shapes on buffers that are there already. A product (m, k) (k, n) counts 2 m k n. For a user

    tower        (1, 64) (64, 64), (1, 64) (64, R)
    predictor    5 steps of (K, E) (E, H), (K, H) (H, H), (K, H) (H, 1) forward, (K, 1) (1, H), (K, H) (H, H) back,
                 (E, K) (K, H), (H, K) (K, H), (H, K) (K, 1) for the weights; N items through (E, H), (H, H), (H, 1)
    head         (K, R) (R, K) and (R, K) (K, 1) twice for the right-hand side and the answer, the factorisation's
                 K³ / 3 and the solutions' 2 K² operations as (K, K) (K, K / 6 + 1); N items times (R, 1)
    head + std   and (K, K) (K, R), (R, K) (K, R) for the covariance, (N, R) (R, R) for the variances

with E = 32, H = 64, R = 33. The user's half of the predictor's first layer is a constant of the user and costs next to
nothing; the loops multiply it out each time.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from models.datasets.dataset import Dataset, Interactions, Items
from models.datasets.schema import AttributeEncoder, AttributeField, Domain, Schema
from models.layers import with_constant
from models.recommender import Evidence, FitOptions, ItemContent, ItemTable, Recommender
from models.recommenders.maml import Maml
from models.registry import RECOMMENDERS
from models.training.learners import Predictor

N_ITEMS, K, STEPS, TOP, RATE = 3700, 20, 5, 10, 0.1
E, H, R = 32, 64, 33
BATCHES = (1, 8, 64)
REPETITIONS = 15
TUTORIAL_USERS = 4
"""Users of one repetition of the tutorial's loop, which costs the same for each."""

Shape = tuple[int, int, int]
TOWER: list[Shape] = [(1, 64, 64), (1, 64, R)]
STEP: list[Shape] = [(K, E, H), (K, H, H), (K, H, 1), (K, 1, H), (K, H, H), (E, K, H), (H, K, H), (H, K, 1)]
RIDGE: list[Shape] = [(K, R, K), (K, R, 1), (K, K, K // 6 + 1), (R, K, 1)]
FLOORS: dict[str, tuple[list[Shape], list[Shape]]] = {
    "predictor": ([*TOWER, *STEP * STEPS], [(N_ITEMS, E, H), (N_ITEMS, H, H), (N_ITEMS, H, 1)]),
    "head": ([*TOWER, *RIDGE], [(N_ITEMS, R, 1)]),
    "head + std": ([*TOWER, *RIDGE, (K, K, R), (R, K, R)], [(N_ITEMS, R, 1), (N_ITEMS, R, R)]),
}
"""Products (m, k, n) of one user: of the adaptation, and of the scoring."""


def main() -> None:
    parser = argparse.ArgumentParser(description="µs a user of adapting to 20 ratings, beside the arithmetic floor")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        figures = measure()
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def measure() -> list[dict[str, float | str]]:
    """One row a system and batch size: µs a user of adapting, and of adapting, scoring and taking the best."""
    data = random_data()
    sizes = {"input_size": 64, "tower_sizes": (64,), "embedding_size": E, "predictor_sizes": (H, H)}
    quick = {"epochs": 1, "warm_start": False, "implicit": False}
    steps = {"adapt": "predictor", "steps": STEPS, "inner_learning_rate": RATE, "inner_reg": 0.0}
    wanted = {
        "predictor": ("maml", {**sizes, **quick, **steps}),
        "head": ("maml", {**sizes, **quick, "uncertainty": False}),
        "head + std": ("maml", {**sizes, **quick}),
        "bayes": ("bayes", {"n_factors": E, "iterations": 1}),
    }
    systems: dict[str, tuple[Recommender, ItemTable]] = {}
    for name, (kind, settings) in wanted.items():
        if kind in RECOMMENDERS:
            recommender = RECOMMENDERS[kind](RECOMMENDERS[kind].Config.model_validate(settings), data.schema)
            with torch.enable_grad():
                fitted = recommender.fit(data, FitOptions())
            systems[name] = recommender.eval().requires_grad_(False), fitted.table
    loop = Loop.of(*systems["predictor"])
    check(loop, *systems["predictor"], random_evidence(data, 3))
    figures = []
    for batch in BATCHES:
        evidence = random_evidence(data, batch)
        runs: dict[str, tuple[int, Callable[[], object]]] = {}
        for name, (recommender, items) in systems.items():
            runs[f"{name}/adapt"] = batch, partial(recommender.adapt, evidence, items, 0)
            runs[f"{name}/answer"] = batch, partial(answer, recommender, items, evidence)
        for name, (adapting, scoring) in FLOORS.items():
            runs[f"{name}/adapt floor"] = batch, products(adapting, batch)
            runs[f"{name}/answer floor"] = batch, products([*adapting, *scoring], batch)
        few = evidence.rows(slice(0, TUTORIAL_USERS))
        for name, rows in (("tutorial", False), ("with rows", True)):
            runs[f"{name}/adapt"] = few.batch_size, partial(loop.answer, few, rows, score=False)
            runs[f"{name}/answer"] = few.batch_size, partial(loop.answer, few, rows)
        micros = interleaved(runs)
        for name in ("tutorial", "with rows", *systems):
            row: dict[str, float | str] = {"system": name, "batch": batch}
            for part in ("adapt", "answer"):
                row[part] = micros[f"{name}/{part}"]
                row[f"{part}_times_tutorial"] = micros[f"tutorial/{part}"] / micros[f"{name}/{part}"]
                if name in FLOORS:
                    row[f"{part}_floor"] = micros[f"{name}/{part} floor"]
                    row[f"{part}_of_floor"] = micros[f"{name}/{part} floor"] / micros[f"{name}/{part}"]
            figures.append(row)
    return figures


class Textbook(nn.Module):
    """The model as tutorials write it."""

    def __init__(self, user_tower: nn.Module, item_tower: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.user_tower, self.item_tower, self.predictor = user_tower, item_tower, predictor

    def forward(self, user: Tensor, items: Tensor) -> Tensor:
        users = self.user_tower(user).expand(len(items), -1)
        out: Tensor = self.predictor(torch.cat([users, self.item_tower(items)], dim=1)).squeeze(-1)
        return out


@dataclass(frozen=True)
class Loop:
    """Adaptation as tutorials write it, with the weights of ours."""

    learner: Predictor
    base: Tensor
    """(N,) what the network's predictions are added to."""
    inputs: Tensor
    """(N, 64) of the item tower."""
    rows: Tensor
    """(N, E) what the item tower makes of them."""

    @classmethod
    def of(cls, recommender: Recommender, items: ItemTable) -> "Loop":
        """The loop for a recommender; its item rows become those of random inputs."""
        assert isinstance(recommender, Maml)
        assert isinstance(recommender.tasks.learner, Predictor)
        inputs = torch.randn(N_ITEMS, 64)
        items["row"].copy_(recommender.tasks.learner.embed(inputs))
        return cls(recommender.tasks.learner, recommender.tasks.mean[0] + items["bias"], inputs, items["row"])

    def answer(self, evidence: Evidence, keep_rows: bool, score: bool = True) -> list[Tensor]:
        """Scores of the best items (or, without `score`, nothing) of each user, adapted one at a time."""
        learner, inputs = self.learner, self.rows if keep_rows else self.inputs
        item_tower = nn.Identity() if keep_rows else learner.item_tower
        textbook = Textbook(learner.user_tower, item_tower, learner.predictor)
        best = []
        for u in range(evidence.batch_size):
            user, items = with_constant(evidence.attributes[u]), evidence.items[u]
            target = evidence.values[u] - self.base[items]
            model = copy.deepcopy(textbook)
            optimizer = torch.optim.SGD(model.predictor.requires_grad_().parameters(), lr=RATE)
            with torch.enable_grad():
                for _ in range(STEPS):
                    optimizer.zero_grad()
                    loss = nn.functional.mse_loss(model(user, inputs[items]), target)
                    loss.backward()
                    optimizer.step()
            if score:
                best.append((self.base + model(user, inputs)).topk(TOP).values)
        return best


def check(loop: Loop, recommender: Recommender, items: ItemTable, evidence: Evidence) -> None:
    """The loops and ours must give the same scores, or there is nothing to compare."""
    best = recommender.score(recommender.adapt(evidence, items, 0), items).mean.topk(TOP).values
    for keep_rows in (False, True):
        torch.testing.assert_close(torch.stack(loop.answer(evidence, keep_rows)), best, rtol=1e-3, atol=1e-3)


def answer(recommender: Recommender, items: ItemTable, evidence: Evidence) -> Tensor:
    """The best items of each user."""
    return recommender.score(recommender.adapt(evidence, items, 0), items).mean.topk(TOP).indices


def products(shapes: list[Shape], batch: int) -> Callable[[], None]:
    """The same products for `batch` users, batched, on buffers that are there already."""
    # A user's catalogue-long activations go through one by one: that keeps them in cache, which is the faster way.
    blocks = {shape: 1 if shape[0] == N_ITEMS else batch for shape in shapes}
    buffers = {
        (m, k, n): [torch.rand(block, *size) for size in ((m, k), (k, n), (m, n))]
        for (m, k, n), block in blocks.items()
    }

    def run() -> None:
        for shape in shapes:
            left, right, out = buffers[shape]
            for _ in range(batch // blocks[shape]):
                torch.bmm(left, right, out=out)

    return run


def interleaved(runs: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    """Median µs a user of each run; all are repeated in turn, so that a slow moment of the machine slows them all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(REPETITIONS + 1):
        for name, (users, run) in runs.items():
            started = time.perf_counter()
            run()
            if repetition:  # the first one warms up
                times[name].append((time.perf_counter() - started) / users * 1e6)
    return {name: statistics.median(measured) for name, measured in times.items()}


def random_data() -> Dataset:
    """Enough ratings for every system to have weights of the textbook's shapes."""
    n_users, n_each = 100, 60
    fields = [AttributeField(name=f"attribute{i}", kind="numeric") for i in range(63)]
    schema = Schema(domains=[Domain(name="movies")], user_attributes=AttributeEncoder(fields=fields))
    users = torch.arange(n_users).repeat_interleave(n_each)
    n = len(users)
    interactions = Interactions.sorted(
        users,
        torch.cat([torch.randperm(N_ITEMS)[:n_each] for _ in range(n_users)]),
        torch.randint(1, 6, (n,)),
        torch.ones(n),
        torch.zeros(n),
        torch.arange(n),
    )
    names = [str(i) for i in range(N_ITEMS)]
    content = ItemContent(torch.zeros(N_ITEMS, 0), names)
    items = Items(names, names, torch.zeros(N_ITEMS, dtype=torch.long), [{} for _ in names], content)
    return Dataset("random", schema, [str(u) for u in range(n_users)], torch.randn(n_users, 63), items, interactions)


def random_evidence(data: Dataset, batch: int) -> Evidence:
    """Users with K ratings."""
    return Evidence(
        items=torch.stack([torch.randperm(data.n_items)[:K] for _ in range(batch)]),
        values=torch.randint(1, 6, (batch, K)).float(),
        weights=torch.ones(batch, K),
        kinds=torch.zeros(batch, K, dtype=torch.long),
        times=torch.full((batch, K), torch.nan, dtype=torch.float64),
        attributes=torch.randn(batch, 63),
    )


def table(figures: list[dict[str, float | str]]) -> str:
    """The figures as text, with the operations behind each floor."""
    lines = [
        f"{'':12}{'batch':>6} | {'adapt':>8}{'x tut.':>8}{'of floor':>9} | {'answer':>8}{'x tut.':>8}{'of floor':>9}"
    ]
    for row in figures:
        cells = [f"{row['system']:12}{row['batch']:>6} |"]
        for part in ("adapt", "answer"):
            share = f"{row[f'{part}_of_floor']:9.0%}" if f"{part}_of_floor" in row else " " * 9
            cells.append(f"{row[part]:8.1f}{row[f'{part}_times_tutorial']:8.1f}{share} |")
        lines.append(" ".join(cells).removesuffix(" |"))
    lines.append("\nµs a user; `answer` = adapt, score 3,700 items, take 10. Floating-point operations a user:")
    for name, (adapting, scoring) in FLOORS.items():
        counts = [sum(2 * m * k * n for m, k, n in shapes) for shapes in (adapting, scoring)]
        lines.append(f"  {name}: {counts[0]:,} to adapt, {counts[1]:,} to score")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
