"""What every recommender must keep. Each law is a function of a fitted case; its docstring states the law."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from models import checkpoint
from models.recommender import Evidence, FitOptions, Fitted, ItemEvidence, ItemTable, Recommender, Scores
from models.training.statistics import domain_means, shrunken_item_biases
from tests.laws.entries import Entry
from tests.laws.world import SUPPORT_SIZES, World

TOLERANCE = 1e-5
SEED = 3
RATINGS_OF_AN_ITEM = (0, 1, 3, 10)
DRAWS = 3
"""Of raters of an item, disjoint, to take the mean over."""


@dataclass(frozen=True)
class Case:
    """A recommender fitted on a world."""

    entry: Entry
    kind: type[Recommender]
    world: World
    recommender: Recommender
    fitted: Fitted

    @property
    def table(self) -> ItemTable:
        return self.fitted.table

    @property
    def targets(self) -> tuple[int, ...]:
        """Domains that the recommender answers for."""
        return self.entry.targets or tuple(range(len(self.world.data.schema.domains)))


def fit_case(entry: Entry, kind: type[Recommender], world: World) -> Case:
    """Fit a recommender with its entry's settings, the way training does."""
    recommender = kind(kind.Config.model_validate(entry.settings), world.data.schema)
    fitted = recommender.fit(world.training, FitOptions(seed=SEED))
    recommender.eval().requires_grad_(False)
    return Case(entry, kind, world, recommender, fitted)


def answer(case: Case, evidence: Evidence, target: int, table: ItemTable | None = None) -> Scores:
    """Scores of all items for some evidence."""
    table = case.table if table is None else table
    with torch.no_grad():
        return case.recommender.score(case.recommender.adapt(evidence, table, target), table)


def batched_equals_single(case: Case) -> None:
    """Answering users together gives what answering each alone gives."""
    evidence = case.world.mixed_evidence()
    for target in case.targets:
        together = answer(case, evidence, target)
        for user in range(evidence.batch_size):
            length = int(evidence.mask[user].sum())
            alone = answer(case, _cut(evidence.rows(slice(user, user + 1)), length), target)
            _close(alone.mean[0], together.mean[user])
            if together.std is not None and alone.std is not None:
                _close(alone.std[0], together.std[user])


def padding_changes_nothing(case: Case) -> None:
    """Entries of weight zero behind the interactions change nothing, whatever they hold."""
    evidence = case.world.mixed_evidence()
    generator = torch.Generator().manual_seed(0)
    for target in case.targets:
        plain = answer(case, evidence, target)
        padded = answer(case, _padded(evidence, 7, generator), target)
        _close(padded.mean, plain.mean)
        if plain.std is not None and padded.std is not None:
            _close(padded.std, plain.std)


def empty_evidence_is_answered(case: Case) -> None:
    """Without interactions the scores are finite; attributes alone change them exactly where the entry says so."""
    for target in case.targets:
        evidence = case.world.evidence(case.world.held, 0).emptied()
        mean = answer(case, evidence, target).mean
        assert mean.isfinite().all()
        nobody = answer(case, replace(evidence, attributes=torch.zeros_like(evidence.attributes)), target).mean
        assert nobody.isfinite().all()
        assert (not torch.allclose(mean, nobody, atol=1e-4)) == case.entry.uses_attributes


def serving_changes_nothing(case: Case) -> None:
    """Neither `adapt` nor `score` nor `sample` changes a parameter, a buffer or the item table."""
    before = {name: tensor.clone() for name, tensor in case.recommender.state_dict().items()}
    columns = {name: column.clone() for name, column in case.table.columns.items()}
    states = case.recommender.adapt(case.world.mixed_evidence(), case.table, case.targets[-1])
    case.recommender.score(states, case.table)
    case.recommender.sample(states, case.table, 2, torch.Generator().manual_seed(0))
    after = case.recommender.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert columns.keys() == case.table.columns.keys()
    assert all(torch.equal(columns[name], case.table[name]) for name in columns)


def same_seed_same_fit(case: Case) -> None:
    """Fitting again with the same seed gives the same weights and item rows."""
    torch.manual_seed(12345)  # a fit draws from its own seed, never from the process-wide generator
    again = fit_case(case.entry, case.kind, case.world)
    first, second = case.recommender.state_dict(), again.recommender.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(case.table[name], again.table[name]) for name in case.table.columns)


def checkpoint_keeps_scores(case: Case) -> None:
    """Saved and loaded, a recommender gives bit-identical scores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        checkpoint.save(
            path, case.recommender, case.fitted, case.world.data, metrics={}, seed=SEED, fit_seconds=0, code_version="0"
        )
        loaded = checkpoint.load(path)
    again = replace(case, recommender=loaded.recommender, fitted=replace(case.fitted, table=loaded.table))
    for target in case.targets:
        before = answer(case, case.world.mixed_evidence(), target)
        after = answer(again, case.world.mixed_evidence(), target)
        assert torch.equal(before.mean, after.mean)
        if before.std is not None:
            assert after.std is not None
            assert torch.equal(before.std, after.std)


def new_items_are_scored(case: Case) -> None:
    """Items met after training get finite scores from their content, can be evidence, and leave the others' scores."""
    evidence = case.world.mixed_evidence()
    for target in case.targets:
        rows = case.recommender.embed_items(case.world.newcomers[target], target)
        grown = case.table.appended(rows, target)
        scores = answer(case, evidence, target, grown)
        assert scores.mean.shape == (evidence.batch_size, len(grown))
        assert scores.mean.isfinite().all()
        _close(scores.mean[:, : len(case.table)], answer(case, evidence, target).mean)
        newest = torch.where(evidence.mask, len(grown) - 1, 0)
        assert answer(case, replace(evidence, items=newest), target, grown).mean.isfinite().all()


def every_item_has_a_row(case: Case) -> None:
    """The table has a finite row for each item of the data, in its order; the untouched ones are not `trained`."""
    items = case.world.data.items
    touched = torch.zeros(len(items), dtype=torch.bool)
    touched[case.world.training.interactions.items] = True
    assert torch.equal(case.table.domain, items.domain)
    assert all(len(column) == len(items) for column in case.table.columns.values())
    assert all(c.isfinite().all() for c in case.table.columns.values() if c.is_floating_point())
    assert not touched.all()
    assert case.table.trained.any()
    assert not (case.table.trained & ~touched).any()


def positions_are_columns(case: Case) -> None:
    """Scoring some items gives the same columns as scoring all."""
    positions = torch.tensor([5, 0, 79, 7, 31])
    for target in case.targets:
        states = case.recommender.adapt(case.world.mixed_evidence(), case.table, target)
        whole, part = case.recommender.score(states, case.table), case.recommender.score(states, case.table, positions)
        _close(part.mean, whole.mean[:, positions])
        assert (part.std is None) == (whole.std is None)
        if part.std is not None and whole.std is not None:
            _close(part.std, whole.std[:, positions])


def means_are_those_of_the_scores(case: Case) -> None:
    """Means asked for alone are those that come with standard deviations."""
    for target in case.targets:
        states = case.recommender.adapt(case.world.mixed_evidence(), case.table, target)
        _close(case.recommender.means(states, case.table), case.recommender.score(states, case.table).mean)


def states_have_their_size(case: Case) -> None:
    """A state is `state_size` finite numbers, whatever the evidence; scores are of the kind declared."""
    evidence = case.world.mixed_evidence()
    for target in case.targets:
        states = case.recommender.adapt(evidence, case.table, target)
        assert states.shape == (evidence.batch_size, case.recommender.state_size)
        assert states.isfinite().all()
        assert case.recommender.score(states, case.table).kind == case.recommender.kind


def uncertainty_is_sane(case: Case) -> None:
    """A standard deviation, where given, is positive, and the part of it that evidence removes is no more than all."""
    for target in case.targets:
        scores = answer(case, case.world.mixed_evidence(), target)
        if scores.std is not None:
            assert scores.std.shape == scores.mean.shape
            assert (scores.std > 0).all()
        if scores.taste_std is not None:
            assert scores.std is not None
            assert (scores.taste_std >= 0).all()
            assert (scores.taste_std <= scores.std + TOLERANCE).all()
        spread = scores.std if scores.taste_std is None else scores.taste_std
        states = case.recommender.adapt(case.world.mixed_evidence(), case.table, target)
        alone = case.recommender.taste_std(states, case.table)
        assert (alone is None) == (spread is None)
        if alone is not None:
            torch.testing.assert_close(alone, spread, rtol=0, atol=TOLERANCE)
            single = case.recommender.taste_std(states[:1], case.table)  # some have another way for one user
            torch.testing.assert_close(single, spread[:1], rtol=0, atol=TOLERANCE)


def samples_follow_the_scores(case: Case) -> None:
    """Draws are (n, B, N), the same for the same seed, and lie around the mean."""
    n = 400
    evidence = case.world.mixed_evidence().rows(slice(0, 10))
    states = case.recommender.adapt(evidence, case.table, case.targets[0])
    mean = case.recommender.score(states, case.table).mean
    draws, again = (case.recommender.sample(states, case.table, n, torch.Generator().manual_seed(1)) for _ in range(2))
    assert draws.shape == (n, *mean.shape)
    assert torch.equal(draws, again)
    moved = case.recommender.deviations(states, case.table, n, torch.Generator().manual_seed(1))
    torch.testing.assert_close(draws - mean, torch.zeros_like(draws) if moved is None else moved, rtol=0, atol=1e-4)
    six_sigma = 6 * draws.std(dim=0) / n**0.5
    assert ((draws.mean(dim=0) - mean).abs() <= six_sigma + 1e-3 * (1 + mean.abs())).all()


def better_than_popularity(case: Case) -> None:
    """With a dozen interactions it knows what people think better than the items' means do."""
    if case.entry.beats_popularity:
        for target in case.targets:
            assert _loss(case, max(SUPPORT_SIZES), target) < _popularity_loss(case, target)


def more_evidence_helps(case: Case) -> None:
    """In the mean over people, answers come nearer to the truth as evidence grows."""
    if case.entry.learns_from_evidence:
        for target in case.targets:
            nothing, little, much = (_loss(case, size, target) for size in SUPPORT_SIZES)
            assert much < nothing
            assert much < little
            assert little < nothing * 1.02  # a few interactions may not help yet; they must not hurt


def ratings_of_an_item_improve_it(case: Case) -> None:
    """The more ratings an item that came after the fit is learnt from, the nearer its scores come to the truth, in the
    mean over items; no ratings change nothing, and nor does their order."""
    if case.recommender.kind == "preference":  # what a rating is worth is not on its scale
        return
    for target in case.targets:
        new = _Newcomers.of(case, target)
        if not case.entry.learns_items:
            assert case.recommender.learn_items(new.table, new.rows, new.ratings(3)) == {}
            continue
        for name, column in case.recommender.learn_items(new.table, new.rows, new.ratings(0)).items():
            _close(column, new.table[name][new.rows])
        some = new.ratings(3)
        shuffled = torch.randperm(len(some.index), generator=torch.Generator().manual_seed(0))
        again = ItemEvidence(**{name: tensor[shuffled] for name, tensor in vars(some).items()})
        for name, column in case.recommender.learn_items(new.table, new.rows, some).items():
            _close(case.recommender.learn_items(new.table, new.rows, again)[name], column)
        losses = [new.loss(n) for n in RATINGS_OF_AN_ITEM]
        assert all(more < fewer for fewer, more in pairwise(losses)), losses


def states_depend_on_what_was_rated(case: Case) -> None:
    """A state reads no rows but those of the items in its evidence, so that learning others leaves it valid."""
    evidence = case.world.evidence(case.world.held[:10], 3)
    others = torch.ones(len(case.table), dtype=torch.bool).index_fill_(0, evidence.items[evidence.mask], False)
    others[0] = False  # what padding points to
    changed = {
        name: column + others.view(-1, *[1] * (column.dim() - 1)) * torch.ones_like(column)
        for name, column in case.table.columns.items()
        if column.is_floating_point()
    }
    table = replace(case.table, columns=case.table.columns | changed)
    if case.entry.learns_items and case.recommender.kind == "rating":
        for target in case.targets:
            _close(
                case.recommender.adapt(evidence, table, target), case.recommender.adapt(evidence, case.table, target)
            )


LAWS: tuple[Callable[[Case], None], ...] = (
    batched_equals_single,
    padding_changes_nothing,
    empty_evidence_is_answered,
    serving_changes_nothing,
    same_seed_same_fit,
    checkpoint_keeps_scores,
    new_items_are_scored,
    every_item_has_a_row,
    positions_are_columns,
    means_are_those_of_the_scores,
    states_have_their_size,
    uncertainty_is_sane,
    samples_follow_the_scores,
    better_than_popularity,
    more_evidence_helps,
    ratings_of_an_item_improve_it,
    states_depend_on_what_was_rated,
)


@dataclass(frozen=True)
class _Newcomers:
    """Items as they would be had they come after the fit: rows from their content, and what users rated them."""

    case: Case
    target: int
    items: Tensor
    """(n,) of the world."""
    table: ItemTable
    """The fitted one with the newcomers behind the others."""
    rows: Tensor
    """(n,) of the newcomers."""
    raters: list[Tensor]
    """For each item, rows of interactions with it."""

    @classmethod
    def of(cls, case: Case, target: int) -> "_Newcomers":
        """Newcomers of a domain: all items with ratings enough."""
        seen, items = case.world.training.interactions, case.world.data.items
        rated = [(seen.items == i).nonzero().flatten() for i in range(len(items))]
        enough = [
            i
            for i in range(len(items))
            if len(rated[i]) >= DRAWS * max(RATINGS_OF_AN_ITEM) and items.domain[i] == target
        ]
        chosen = torch.tensor(enough)
        table = case.table.appended(case.recommender.embed_items(items.content.rows(chosen), target), target)
        rows = torch.arange(len(case.table), len(table))
        return cls(case, target, chosen, table, rows, [rated[i] for i in enough])

    def ratings(self, each: int, draw: int = 0) -> ItemEvidence:
        """`each` ratings of each item, by users in the state that all their other interactions make."""
        training = self.case.world.training
        rows = torch.cat([rows[draw::DRAWS][:each] for rows in self.raters])
        users = training.interactions.users[rows]
        others = [
            torch.tensor([r for r in range(int(training.offsets[u]), int(training.offsets[u + 1])) if r != rated])
            for u, rated in zip(users.tolist(), rows.tolist(), strict=True)
        ]
        evidence = training.evidence_of(others, training.user_attributes[users])
        return ItemEvidence(
            index=torch.arange(len(self.items)).repeat_interleave(each),
            states=self.case.recommender.adapt(evidence, self.table, self.target),
            values=training.interactions.values[rows],
            weights=training.interactions.weights[rows],
        )

    def loss(self, each: int) -> float:
        """RMSE of what held-out people are said to think of the newcomers, to what they do think."""
        world, squared = self.case.world, 0.0
        for draw in range(DRAWS):
            learnt = self.case.recommender.learn_items(self.table, self.rows, self.ratings(each, draw))
            table = self.table.with_learnt(self.rows, learnt)
            mean = answer(self.case, world.evidence(world.held, max(SUPPORT_SIZES)), self.target, table).mean
            squared += float((mean[:, self.rows] - world.truth[world.held][:, self.items]).square().mean())
        return (squared / DRAWS) ** 0.5


def _loss(case: Case, per_domain: int, target: int) -> float:
    """How far the answers for held-out people are from the truth, at an amount of evidence."""
    mean = answer(case, case.world.evidence(case.world.held, per_domain), target).mean
    return _distance(case, mean, target)


def _popularity_loss(case: Case, target: int) -> float:
    """The loss of the items' mean ratings or, where only the order counts, of how often items were touched."""
    world = case.world
    if case.recommender.kind == "preference":
        score = torch.bincount(world.training.interactions.items, minlength=len(world.data.items)).float()
    else:
        means = domain_means(world.training)
        score = means[target] + shrunken_item_biases(world.training, means, reg=5)
    return _distance(case, score.expand(len(world.held), -1), target)


def _distance(case: Case, mean: Tensor, target: int) -> float:
    """Ratings: RMSE to the true ones over unseen items. Preferences: share of (liked, other) pairs out of order."""
    world = case.world
    if case.recommender.kind == "rating":
        unseen = world.unseen(target)
        return float((mean - world.truth[world.held])[unseen].square().mean().sqrt())
    liked = world.liked_later(target)
    other = world.unseen(target) & ~liked
    pairs = liked[:, :, None] & other[:, None, :]  # (V, N, N)
    wrong = (mean[:, :, None] < mean[:, None, :]).float() + 0.5 * (mean[:, :, None] == mean[:, None, :]).float()
    return float(wrong[pairs].mean())


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def _cut(evidence: Evidence, length: int) -> Evidence:
    """The first `length` entries."""
    kept = {name: tensor[:, :length] for name, tensor in vars(evidence).items() if name != "attributes"}
    return Evidence(**kept, attributes=evidence.attributes)


def _padded(evidence: Evidence, extra: int, generator: torch.Generator) -> Evidence:
    """`extra` entries of weight zero more, and all padding filled with what looks like interactions."""
    grown = {
        name: torch.cat([tensor, tensor.new_zeros(len(tensor), extra)], dim=1)
        for name, tensor in vars(evidence).items()
        if name != "attributes"
    }
    shape, mask = grown["weights"].shape, grown["weights"] > 0
    junk = {
        "items": torch.randint(80, shape, generator=generator),
        "values": 100 * torch.randn(shape, generator=generator),
        "kinds": torch.randint(2, shape, generator=generator),
        "times": 1e9 * torch.rand(shape, generator=generator, dtype=torch.float64),
    }
    filled = {name: torch.where(mask, grown[name], noise) for name, noise in junk.items()}
    return Evidence(**filled, weights=grown["weights"], attributes=evidence.attributes)
