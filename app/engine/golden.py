"""Golden questions: a checkpoint in service must answer them to the bit as a freshly loaded copy of it does."""

import numpy as np
import torch
from torch import Tensor

from app.engine.answering import Known, Padded, Question, answer
from app.engine.serving import ServedDomain
from models.checkpoint import CheckpointError
from models.recommender import Role

QUESTIONS = 8


def practice_question(domain: ServedDomain, seed: int) -> Question:
    """A question about a domain: of somebody with a few ratings where `seed` is odd, of a newcomer otherwise."""
    generator = np.random.default_rng(seed)
    n = min(20, len(domain.shelf.items)) if seed % 2 else 0
    chosen = generator.choice(len(domain.shelf.items), n, replace=False)
    low, high = domain.shelf.domain.rating_min, domain.shelf.domain.rating_max
    known = Known(
        domain.shelf.positions[chosen],
        generator.uniform(low, high, n).astype(np.float32),
        np.ones(n, np.float32),
        np.full(n, np.nan),
        ["rating"] * n,
        {},
    )
    return Question(domain, known, n, 10, chosen.astype(np.int64))


def practise(domain: ServedDomain) -> None:
    """Answer questions about a domain, with and without evidence, alone and in company."""
    if domain.shelf.items:
        for n in (1, QUESTIONS):
            answer([practice_question(domain, seed) for seed in range(n)])


def examine(candidate: ServedDomain, fresh: ServedDomain, role: Role) -> None:
    """Let the candidate's part in a role practise, then compare it with that of `fresh`, which nothing was done with.

    Raises CheckpointError: checkpoint-unsteady where they differ in a single bit, checkpoint-non-finite.
    """
    expected = _golden(fresh, role)
    practise(candidate)
    given = _golden(candidate, role)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in given):
        raise CheckpointError("checkpoint-non-finite", "its answers to golden questions are not finite")
    if not all(torch.equal(one, other) for one, other in zip(given, expected, strict=True)):
        raise CheckpointError("checkpoint-unsteady", "it does not answer golden questions as a fresh copy of it does")


@torch.no_grad()
def _golden(domain: ServedDomain, role: Role) -> list[Tensor]:
    """States and scores of the part in a role, for each golden question."""
    (part,) = [part for part in domain.parts if part.role == role]
    recommender, table = part.served.recommender, part.served.table
    found = []
    for seed in range(QUESTIONS if domain.shelf.items else 0):
        evidence = Padded.of([practice_question(domain, seed).known]).for_table(part.served)
        states = recommender.adapt(evidence, table, part.target)
        found += [states, recommender.means(states, table, part.rows)]
    return found
