"""The outer loop of episodic training: epochs of gradient steps, and the weights of the best one kept."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.recommender import FitOptions, FitReport, Fitted, ItemTable, Recommender
from models.training.validation import loss

WARM_UP = 0.1
"""Share of the training over which the learning rates rise."""


def outer_loop(
    recommender: Recommender,
    losses: Callable[[int], Iterator[Tensor]],
    table: Callable[[], ItemTable],
    parameters: Iterable[dict[str, Any]],
    options: FitOptions,
    *,
    epochs: int,
    steps: int,
    patience: int,
    learning_rate: float,
) -> Fitted:
    """Minimise `losses(epoch)`, a batch each, by Adam with a cosine schedule over `epochs` times `steps` batches.

    The rates rise over the first batches: Adam's first steps are as long as its rate however small the gradient is, and
    would undo a good start.

    With a validation, training ends `patience` epochs after the best figure and the recommender is left as
    it was then, beside the item table of that moment; without one all epochs are run. `parameters` are optimiser
    groups, of the recommender and of what else is learnt with it.
    """
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=max(1, epochs * steps)))
    history: list[dict[str, float]] = []
    best_error, best_epoch = math.inf, 0
    best: tuple[dict[str, Tensor], ItemTable] | None = None
    for epoch in range(epochs):
        recommender.train()
        total, batches = 0.0, 0
        for batch_loss in losses(epoch):
            optimizer.zero_grad()
            torch.autograd.backward(batch_loss)
            optimizer.step()
            schedule.step()
            total, batches = total + float(batch_loss.detach()), batches + 1
        recommender.eval()
        with torch.no_grad():
            rows = table()
        metrics = {"loss": total / max(1, batches)}
        if options.validation is not None:
            metrics |= options.validation.measure(recommender, rows)
        history.append(metrics)
        options.progress("training", (epoch + 1) / epochs, metrics)
        measured = loss(metrics)
        error = -float(epoch) if measured is None else measured  # unmeasured, the last epoch is the best
        if error < best_error or best is None:
            weights = {name: tensor.clone() for name, tensor in recommender.state_dict().items()}
            best_error, best_epoch, best = error, epoch + 1, (weights, rows)
        elif epoch + 1 - best_epoch >= patience:
            break
    if best is None:
        raise ValueError("training takes at least one epoch")
    recommender.load_state_dict(best[0])
    return Fitted(best[1], FitReport(best_epoch, history))


def _rate(step: int, total: int) -> float:
    """Share of the learning rate at a step: up in a straight line, down along a cosine."""
    return min(1.0, (step + 1) / (WARM_UP * total)) * (1 + math.cos(math.pi * step / total)) / 2
