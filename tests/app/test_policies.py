"""Policies: slates whose propensities are true, told by statistics that a wrong one does not pass."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from app.engine.catalogue import Catalogue, CatalogueItem
from app.engine.mixture import Mixture
from app.engine.policies.arms import Arms
from app.engine.policies.choose import Plan, choose
from app.engine.policies.linear import Lesson, LinearArms, context
from app.engine.policies.settings import POLICIES, Exploration
from app.engine.policies.slots import Choice
from app.engine.serving import Part, Served
from models import checkpoint
from models.recommender import Evidence
from tests.laws.world import DOMAINS, World

N, K = 50, 5
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def mixture(trained: Path, world: World) -> Mixture:
    """What `bayes` thinks of 50 films, for somebody who rated three."""
    catalogue, every = Catalogue().followed(
        1, [DOMAINS[0]], [CatalogueItem(i, "films", f"item{i}", "", {}, True) for i in range(N)]
    )
    served = Served.of("bayes", checkpoint.load(trained / "bayes")).following(catalogue, every)
    part = Part.of("collaborative", served, catalogue.shelves["films"])
    with torch.no_grad():
        evidence = Evidence(
            items=served.row_of[[3, 10, 42]][None],
            values=torch.tensor([[5.0, 1.0, 4.0]]),
            weights=torch.ones(1, 3),
            kinds=torch.zeros(1, 3, dtype=torch.long),
            times=torch.full((1, 3), torch.nan, dtype=torch.float64),
            attributes=torch.zeros(1, served.recommender.schema.user_attributes.width),
        )
        state = served.recommender.adapt(evidence, served.table, 0)
    return Mixture([part], [state], [1.0])


@pytest.fixture(scope="module")
def mean(mixture: Mixture) -> torch.Tensor:
    """(50,) expected ratings."""
    (part,), (state,) = mixture.parts, mixture.states
    with torch.no_grad():
        return part.served.recommender.means(state, part.served.table, part.rows)[0]


Slate = Callable[..., Choice]


@pytest.fixture(scope="module")
def slate(mixture: Mixture, mean: torch.Tensor) -> Slate:
    """`slate(seed, policy=…, …)`; `open_` and `arms` as wanted."""

    def make(
        seed: int, *, k: int = K, scores: torch.Tensor = mean, arms: Arms | None = None, **settings: object
    ) -> Choice:
        greedy = torch.topk(scores, min(k, int(torch.isfinite(scores).sum()))).indices.numpy()
        plan = Plan(
            Exploration.model_validate(settings), seed, arms or Arms.none(N), (1.0, 5.0), item_keys=np.arange(N)
        )
        with torch.no_grad():
            return choose(plan, scores, greedy, mixture)

    return make


# what any policy keeps to


@pytest.mark.parametrize("policy", POLICIES)
def test_a_slate_has_open_items_once_each_and_is_the_same_under_one_seed(
    slate: Slate, mean: torch.Tensor, policy: str
) -> None:
    closed = mean.clone()
    closed[::2] = -torch.inf
    mixed = {} if policy == "greedy" else {"epsilon": 0.5}
    for seed in range(20):
        made = slate(seed, k=10, scores=closed, policy=policy, **mixed)
        assert len(set(made.local.tolist())) == 10
        assert (made.local % 2 == 1).all()
        again = slate(seed, k=10, scores=closed, policy=policy, **mixed)
        assert (made.local == again.local).all()
        assert made.propensities == again.propensities
        if mixed:
            assert made.propensities is not None
            assert all(0.5 / 25 <= p <= 1 for p in made.propensities)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_slate_may_take_all_that_is_open_or_nothing(slate: Slate, mean: torch.Tensor, policy: str) -> None:
    """The last open item has propensity 1 where anything is random."""
    few = torch.full_like(mean, -torch.inf)
    assert len(slate(0, scores=few, policy=policy).local) == 0
    few[[4, 7, 9]] = mean[[4, 7, 9]]
    mixed = {} if policy == "greedy" else {"epsilon": 0.5}
    made = slate(0, scores=few, policy=policy, **mixed)
    assert sorted(made.local.tolist()) == [4, 7, 9]
    if mixed:
        assert made.propensities is not None
        assert made.propensities[-1] == 1


@pytest.mark.parametrize("policy", ["ucb", "lin_ucb", "epsilon_greedy"])
def test_deterministic_policies_have_no_propensities(slate: Slate, policy: str) -> None:
    one, two = (slate(seed, policy=policy, epsilon=0.0) for seed in range(2))
    assert one.propensities is None
    assert (one.local == two.local).all()


def test_explored_is_what_greedy_would_not_have(slate: Slate, mean: torch.Tensor) -> None:
    best = set(torch.topk(mean, K).indices.tolist())
    made = slate(3, policy="epsilon_greedy", epsilon=0.8)
    assert list(made.explored) == [item not in best for item in made.local.tolist()]
    assert any(made.explored)


# true propensities


def calibration(slates: Sequence[tuple[Sequence[int], Sequence[float]]], greedy: Sequence[int]) -> list[float]:
    """For each place, the p-value of the items there against their logged propensities, by chi-square.

    Only slates count whose earlier places are those of `greedy`: there an item has one and the same propensity, so that
    the log tells the distribution. All must have turned up, and their propensities sum to 1.
    """
    values = []
    for place in range(len(greedy)):
        seen: Counter[int] = Counter()
        told: dict[int, float] = {}
        for items, propensities in slates:
            if list(items[:place]) == list(greedy[:place]):
                seen[items[place]] += 1
                told[items[place]] = propensities[place]
        n = sum(seen.values())
        assert len(seen) == N - place
        expected = {item: n * p for item, p in told.items()}
        assert min(expected.values()) >= 20
        rest = n - sum(expected.values())
        if abs(rest) > 1e-6 * n:
            values.append(0.0)
            continue
        values.append(float(chisquare([seen[i] for i in told], [expected[i] for i in told]).pvalue))
    return values


def test_epsilon_greedy_does_what_its_propensities_say(slate: Slate, mean: torch.Tensor) -> None:
    """And the check sees a propensity that is wrong by what one item less is worth."""
    greedy = torch.topk(mean, K).indices.tolist()
    made = [slate(seed, policy="epsilon_greedy", epsilon=0.3) for seed in range(18_000)]
    log = [(choice.local.tolist(), list(choice.propensities or ())) for choice in made]
    assert min(calibration(log, greedy)) > 0.001
    wrong = [(items, [p - 0.3 / (N - j) + 0.3 / N for j, p in enumerate(ps)]) for items, ps in log]
    assert min(calibration(wrong, greedy)) < 0.001


class Reference:
    """Thompson sampling's probabilities from a million joint draws."""

    def __init__(self, mixture: Mixture, mean: torch.Tensor, n: int = 1_000_000, portion: int = 20_000) -> None:
        every = np.arange(N)
        generator = torch.Generator().manual_seed(12345)
        with torch.no_grad():
            self.best = np.concatenate(
                [
                    np.argsort(-(mean.numpy() + mixture.deviations(portion, every, generator)), axis=1)[:, :K].astype(
                        np.int16
                    )
                    for _ in range(n // portion)
                ]
            )  # (n, K)

    def probabilities(self, taken: Sequence[int]) -> NDArray[np.float64]:
        """(N,) probability of each item at the next place."""
        is_taken = np.zeros(N, bool)
        is_taken[list(taken)] = True
        first = self.best[:, 0].copy()
        for column in range(1, len(taken) + 1):
            gone = np.flatnonzero(is_taken[first])
            first[gone] = self.best[gone, column]
        made: NDArray[np.float64] = np.bincount(first, minlength=N) / len(first)
        return made


@pytest.fixture(scope="module")
def reference(mixture: Mixture, mean: torch.Tensor) -> Reference:
    """Computed once."""
    return Reference(mixture, mean)


def deviations(
    log: Sequence[tuple[Sequence[int], Sequence[float]]], reference: Reference, samples: int
) -> NDArray[np.float64]:
    """Of each place, how far its propensity lies from the truth, in standard errors.

    Of a shown item's samples + 1 draws one, the place's own, is known to be a hit.
    """
    out = []
    for items, propensities in log:
        for place, (item, told) in enumerate(zip(items, propensities, strict=True)):
            p = reference.probabilities(items[:place])[item].clip(1e-7, 1 - 1e-7)
            hits = told * (samples + 1) - 1
            out.append((hits - samples * p) / np.sqrt(samples * p * (1 - p) + 1e-3 * samples * p + 0.25))
    return np.array(out)


def test_thompson_s_propensities_are_within_their_error(slate: Slate, reference: Reference) -> None:
    """Of a million-sample reference; and ones that are half as large again are not."""
    samples = 2_000
    made = [slate(seed, policy="thompson", samples=samples) for seed in range(40)]
    assert {choice.log["samples"] for choice in made} == {samples}
    log = [(choice.local.tolist(), list(choice.propensities or ())) for choice in made]
    z = deviations(log, reference, samples)
    assert abs(z).max() < 5
    assert np.sqrt((z**2).mean()) < 1.5
    wrong = [(items, [min(1.5 * p, 1) for p in ps]) for items, ps in log]
    assert abs(deviations(wrong, reference, samples)).max() > 5


def test_thompson_shows_what_its_posterior_says(slate: Slate, reference: Reference) -> None:
    """First and second places of 6,000 slates against the reference; items expected under 20 times are one cell."""
    made = [slate(seed, policy="thompson", samples=0).local.tolist() for seed in range(6_000)]
    assert slate(0, policy="thompson", samples=0).propensities is None
    first = reference.probabilities([])
    top = int(first.argmax())
    for seen, probabilities in (
        ([s[0] for s in made], first),
        ([s[1] for s in made if s[0] == top], reference.probabilities([top])),
    ):
        observed = np.bincount(seen, minlength=N)
        expected = probabilities * len(seen)
        common = expected >= 20
        cells = [*observed[common], observed[~common].sum()], [*expected[common], expected[~common].sum()]
        assert chisquare(*cells).pvalue > 0.001


def test_epsilon_mixes_into_thompson(slate: Slate, reference: Reference) -> None:
    """p = ε / open + (1 - ε) p̂, whoever filled the place."""
    samples, epsilon = 2_000, 0.5
    for seed in range(30):
        made = slate(seed, policy="thompson", samples=samples, epsilon=epsilon)
        assert made.propensities is not None
        items = made.local.tolist()
        for place, p in enumerate(made.propensities):
            truth = epsilon / (N - place) + (1 - epsilon) * reference.probabilities(items[:place])[items[place]]
            assert p == pytest.approx(truth, abs=5 * (1 - epsilon) * np.sqrt(0.25 / samples))


# what policies go by


def test_ucb_adds_the_spread_of_taste(slate: Slate, mixture: Mixture, mean: torch.Tensor) -> None:
    every = np.arange(N)
    with torch.no_grad():
        spread = mixture.spread(every)
    assert spread is not None
    made = slate(0, policy="ucb", scale=3.0)
    assert made.local.tolist() == np.argsort(-(mean.numpy() + 3 * spread))[:K].tolist()
    assert made.log["bonus"] == "posterior"


def test_the_count_bonus_is_ucb1_s(slate: Slate) -> None:
    """Scores alike, 100 shows: an item shown once has sqrt(2 ln 100), one shown four times half of that."""
    shows = np.full(N, 1)
    shows[7] = 100 - 48 - 4
    shows[9] = 4
    arms = Arms(shows, np.zeros(N, np.int64), np.zeros(N))
    assert arms.bonus[0] == pytest.approx(np.sqrt(2 * np.log(shows.sum())))
    assert arms.bonus[9] == pytest.approx(arms.bonus[0] / 2)
    scores = torch.full((N,), 3.0)
    made = slate(0, k=49, scores=scores, arms=arms, policy="ucb", bonus="count")
    assert made.local.tolist()[-1] == 9
    assert 7 not in made.local


def test_an_item_never_shown_comes_in_however_many_there_are(mixture: Mixture) -> None:
    """Of 2,000 items with all scores alike but one, the worst, whose arm alone is new, is among the candidates."""
    n = 2_000
    scores = torch.full((n,), 4.0)
    scores[1_234] = 1.0
    shows = np.full(n, 1_000)
    shows[1_234] = 0
    plan = Plan(
        Exploration(policy="ucb", bonus="count"), 0, Arms(shows, np.zeros(n, np.int64), np.zeros(n)), (1.0, 5.0)
    )
    greedy = np.arange(K)
    assert 1_234 in choose(plan, scores, greedy, mixture).local
    plain = replace(plan, settings=Exploration(policy="lin_ucb", candidates=20), item_keys=np.arange(n))
    made = choose(plain, scores, greedy, mixture)
    assert made.log["candidates_chosen"]["n"] == 20


class NoPosterior:
    """A taste of which only the mean is known."""

    has_posterior = False

    def spread(self, local: NDArray[np.int64]) -> Floats | None:
        """Nobody knows."""
        return None

    def deviations(self, n: int, local: NDArray[np.int64], generator: torch.Generator) -> Floats:
        """Not asked."""
        raise AssertionError

    def state(self) -> tuple[str, Floats]:
        """A newcomer without a checkpoint."""
        return "", np.zeros(1, np.float32)


@pytest.mark.parametrize("arms", ["beta", "normal"])
def test_without_a_posterior_arms_begin_at_the_score_and_follow_rewards(arms: str) -> None:
    """Two items alike; one was rewarded 90 times of 100, the other 10 times: the draws hardly ever confuse them."""
    settings = Exploration.model_validate({"policy": "thompson", "arms": arms, "samples": 50})
    seen = Arms(np.array([200, 200, 0]), np.array([100, 100, 0]), np.array([90.0, 10.0, 0.0]))
    scores = torch.tensor([3.0, 3.0, 3.0])
    firsts = Counter(
        int(choose(Plan(settings, seed, seen, (1.0, 5.0)), scores, np.array([0]), NoPosterior()).local[0])
        for seed in range(300)
    )
    assert firsts[1] == 0
    assert firsts[0] > 250
    unseen = Arms.none(3)
    firsts = Counter(
        int(choose(Plan(settings, seed, unseen, (1.0, 5.0)), scores, np.array([0]), NoPosterior()).local[0])
        for seed in range(300)
    )
    assert min(firsts.values()) > 60


def test_a_linear_arm_is_a_ridge_regression() -> None:
    """Two rewards of .5 beyond the score in context (1, 1): A = I + 2 x x', θ · x = 2 · .5 · 2 / 5, variance 2 / 5."""
    x = (1.0, 1.0)
    learnt = LinearArms(2).learn([Lesson(7, x, 0.5)]).learn([Lesson(7, x, 0.5)])
    mean, std = learnt.predict(np.array([7, 8]), np.array(x))
    assert mean == pytest.approx([2 * 0.5 * 2 / 5, 0])
    assert std**2 == pytest.approx([2 / 5, 2])
    more, _ = learnt.learn([Lesson(7, x, 0.25, again=True)]).predict(np.array([7]), np.array(x))
    assert more == pytest.approx([(1.0 + 0.25) * 2 / 5])  # a further reward of the same show adds to it
    assert len(learnt) == 1


def test_contexts_belong_to_a_checkpoint() -> None:
    state = np.arange(20, dtype=np.float32)
    assert context("one", state) == context("one", state)
    assert context("one", state) != context("two", state)
    assert np.linalg.norm(context("one", state)) == pytest.approx(np.sqrt(2), abs=1e-4)
    assert context("", state) == [1.0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"policy": "greedy", "epsilon": 0.1}, "epsilon is no setting"),
        ({"policy": "lin_ucb", "samples": 5}, "samples is no setting"),
        ({"policy": "ucb", "scale": -1}, "greater than or equal"),
        ({"policy": "thompson", "samples": 20_000}, "less than or equal"),
    ],
)
def test_settings_of_other_policies_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Exploration.model_validate(settings)
