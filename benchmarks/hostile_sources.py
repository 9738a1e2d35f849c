"""What a transfer costs where it has nothing to give: `python -m benchmarks.hostile_sources --help`.

Of the users of the target a fifth is asked; nobody has learnt from what they did there, nor chosen weights by it. They
show k ratings of the target and all that is known of them in the source, and are answered twice: by the blend without
the transfer, and by the guarded blend that would be served. The difference in RMSE has to stay below `ALLOWED`.

A source is hostile where its ratings are shuffled (`--shuffle`: who rated what stays, values do not), or where it
shares nobody with the target (a joined data set). There, users are asked once more with the history of a random
person of the source put under their name: evidence that no validation user had.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from app.commands.terminal import fail, show
from models.blend import Blend, BlendPart
from models.datasets.dataset import Dataset
from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.evaluation.blend import fit_blend
from models.evaluation.draws import draw_by_seed
from models.evaluation.exam import Group
from models.evaluation.metrics import Floats
from models.evaluation.predictors import AlonePredictor, Amounts, BlendPredictor, Predictor, TrainedPredictor
from models.evaluation.significance import paired_bootstrap
from models.evaluation.transfer_guard import fit_guarded
from models.recommender import FitOptions
from models.training.domains import Direction, alone, domain_of, users_in, without
from models.training.train import train

SHARE_ASKED, SHARE_VALIDATION = 0.2, 0.1
SUPPORT_SIZES = (0, 1, 3, 5, 10, 20)
ALLOWED = 0.002
"""RMSE that the guard may cost."""


def measure(data: Dataset, direction: Direction, transfer: str, seed: int) -> list[str]:
    """A line for each amount of evidence: RMSE without and with the transfer, and the difference."""
    people = users_in(data, direction.target).nonzero().flatten()
    people = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))]
    n_asked, n_validation = round(SHARE_ASKED * len(people)), round(SHARE_VALIDATION * len(people))
    asked, held = people[:n_asked].sort().values, people[n_asked : n_asked + n_validation].sort().values
    training = without(data, asked, direction.target)
    base, guarded = _blends(training, direction, transfer, held, seed)
    rows = [("their own", _histories(data, direction.source, asked))]
    if not any(len(history) for history in rows[0][1].values()):
        rows.append(("a stranger's", _strangers(data, direction.source, asked, seed)))
    lines = []
    for whose, histories in rows:
        totals = [
            line
            for size in SUPPORT_SIZES
            if (line := _line(data, direction, base, guarded, asked, histories, size, seed))
        ]
        lines += [f"with {whose} history in the source", *totals]
    return lines


def _blends(
    training: Dataset, direction: Direction, transfer: str, held: Tensor, seed: int
) -> tuple[BlendPredictor, BlendPredictor]:
    """(without the transfer, as it would be served) of `bayes`, which knows the target alone, and a transfer to it."""
    options = FitOptions(seed=seed)
    names = [domain.name for domain in training.schema.domains]
    settings = {"source": names[direction.source], "target": names[direction.target]}
    known = train("bayes", {}, alone(training, direction.target), options, held=held)
    carrying = train(transfer, settings, training, options, held=held)
    here: Predictor = AlonePredictor(known.recommender, known.fitted.table, training, direction.target)
    there: Predictor = TrainedPredictor(carrying.recommender, carrying.fitted.table)
    part = (BlendPart(role="collaborative", digest="", recommender="bayes"), here)
    other = (BlendPart(role="transfer", digest="", recommender=transfer), there)
    base = fit_blend([part], training, held, direction.target, seed=0)
    guarded = fit_guarded([part], other, training, held, direction.target, [direction.source], seed=0)
    show(_weights(guarded))
    amounts = Amounts(training.items.domain, [direction.source])
    return BlendPredictor(base, [here], amounts), BlendPredictor(guarded, [here, there], amounts)


def _weights(blend: Blend) -> str:
    cells = [f"{b.min_source}/{b.min_support}: {b.weights[-1]:.2f}" for b in blend.buckets if b.weights[-1] > 0]
    return "weights of the transfer by source/target evidence: " + ("; ".join(cells) or "none")


def _line(
    data: Dataset,
    direction: Direction,
    base: Predictor,
    guarded: Predictor,
    users: Tensor,
    histories: dict[int, Tensor],
    size: int,
    seed: int,
) -> str:
    draws = draw_by_seed(data, users, direction.target, 10, size, seed + size)
    if not draws:
        return ""
    who = torch.tensor([draw.user for draw in draws])
    known = [torch.cat([histories[draw.user], draw.support]) for draw in draws]
    group = Group.of_rows("", data, direction.target, who, known, [draw.query for draw in draws])
    low, high = (float(bound[direction.target]) for bound in data.schema.scales())
    truth = group.values.double().numpy()

    def losses(predictor: Predictor) -> Floats:
        return np.asarray(np.square(np.clip(predictor.answer(group).mean, low, high) - truth).sum(1))

    before, after = losses(base), losses(guarded)
    counts = np.full(len(who), truth.shape[1], dtype=np.float64)
    cost = paired_bootstrap(after, before, counts, "root_mean")
    without_it = float(np.sqrt(before.sum() / counts.sum()))
    verdict = "ok" if cost.difference <= ALLOWED else "TOO MUCH"
    return (
        f"  k={size:<3} without {without_it:.4f}   served {without_it + cost.difference:.4f}   "
        f"difference {cost.difference:+.4f} [{cost.low:+.4f}, {cost.high:+.4f}]   {verdict}"
    )


def _histories(data: Dataset, source: int, users: Tensor) -> dict[int, Tensor]:
    """Rows of what each user did in the source."""
    there = domain_of(data) == source
    rows = {int(u): torch.arange(int(data.offsets[u]), int(data.offsets[u + 1])) for u in users}
    return {user: of[there[of]] for user, of in rows.items()}


def _strangers(data: Dataset, source: int, users: Tensor, seed: int) -> dict[int, Tensor]:
    """Rows of what a random person of the source did there, for each user."""
    people = users_in(data, source).nonzero().flatten()
    drawn = people[torch.randint(len(people), (len(users),), generator=torch.Generator().manual_seed(seed))]
    theirs = _histories(data, source, drawn)
    return {int(user): theirs[int(other)] for user, other in zip(users, drawn, strict=True)}


def shuffled(data: Dataset, domain: int, seed: int) -> Dataset:
    """The data with the values of one domain's interactions dealt out anew."""
    there = (domain_of(data) == domain).nonzero().flatten()
    values = data.interactions.values.clone()
    values[there] = values[there[torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))]]
    return replace(data, interactions=replace(data.interactions, values=values))


def main(
    data: Annotated[Path, typer.Option(help="Data set folder with two domains or more.")],
    source: Annotated[str, typer.Option(help="The domain that the transfer comes from.")],
    target: Annotated[str, typer.Option(help="The domain that is asked about.")],
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Shuffle the values of the source's ratings.")] = False,
    transfer: Annotated[str, typer.Option(help="The recommender that transfers.")] = "bayes_transfer",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Served accuracy with a guarded transfer, beside that without any."""
    try:
        whole = read(data)
        direction = Direction.named(whole.schema, source, target)
    except (DatasetError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    lines: Sequence[str] = measure(
        shuffled(whole, direction.source, seed) if shuffle else whole, direction, transfer, seed
    )
    title = f"{whole.name}: from {source}{' (shuffled)' if shuffle else ''} to {target}, {transfer}, seed {seed}"
    show(title, *lines)


if __name__ == "__main__":
    typer.run(main)
