"""The Bayesian factor model: closed forms by hand, what uncertainty must do, and coverage where the truth is known."""

import pytest
import torch
from torch import Tensor

from models.datasets.schema import Domain, Schema
from models.recommender import Evidence, FitOptions, Fitted, ItemTable, Recommender
from models.recommenders.bayes import Bayes, BayesConfig
from models.training import sentences
from models.training.choice import fit_choices
from models.training.gaussian import FieldRegression, pack, pack_dual, pack_outer, posterior, unpack
from models.training.statistics import item_counts
from tests.laws.world import World, make_world
from tests.models.tiny import tiny

MEAN, LOADING = 3.0, 0.5


def known_model(variance: float, dispersion: float | None = None) -> tuple[Bayes, ItemTable]:
    """One factor, no attributes; two items of noise 1, (b, v) = (.2, 1) and (-.1, -2), known up to `variance`."""
    config = BayesConfig(n_factors=1, choice_dispersion=dispersion)
    recommender = Bayes(config, Schema(domains=[Domain(name="movies")]))
    recommender.domain_mean.fill_(MEAN)
    recommender.loading.fill_(LOADING)
    columns = {
        "mean": torch.tensor([[0.2, 1.0], [-0.1, -2.0]]),
        "covariance": pack(variance * torch.eye(2)).expand(2, -1).clone(),
        "noise": torch.ones(2),
        "choice": torch.tensor([[0.0, 0.3], [0.0, -0.3]]),
        "lift": torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, 0.0]]),
        "new": torch.zeros(2),
    }
    return recommender, ItemTable(columns, torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.bool))


def ratings(items: list[int], values: list[float], weights: list[float] | None = None) -> Evidence:
    """Evidence of one user without attributes."""
    shape = (1, len(items))
    return Evidence(
        items=torch.tensor(items).long().reshape(shape),
        values=torch.tensor(values).reshape(shape),
        weights=torch.tensor(weights or [1.0] * len(items)).reshape(shape),
        kinds=torch.zeros(shape, dtype=torch.long),
        times=torch.zeros(shape, dtype=torch.float64),
        attributes=torch.zeros(1, 0),
    )


def scores(variance: float, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std, taste std, (2,) each."""
    recommender, table = known_model(variance)
    answer = recommender.score(recommender.adapt(evidence, table, 0), table)
    assert answer.std is not None
    assert answer.taste_std is not None
    return answer.mean[0], answer.std[0], answer.taste_std[0]


def test_a_stranger_has_the_prior():
    """mean_d + b_i; the variance is |(c, v)|², plus 1 for the noise."""
    mean, std, taste = scores(0.0, ratings([], []))
    torch.testing.assert_close(mean, torch.tensor([3.2, 2.9]))
    torch.testing.assert_close(taste.square(), torch.tensor([1.25, 4.25]))
    torch.testing.assert_close(std.square(), taste.square() + 1)


def test_one_rating_moves_a_user_by_the_closed_form():
    """w = phi (r - mean) / (1 + |phi|²) with phi = (.5, 1) and a residual of 1.8: (.4, .8)."""
    mean, _, taste = scores(0.0, ratings([0], [5.0]))
    torch.testing.assert_close(mean, torch.tensor([3.2 + 0.5 * 0.4 + 0.8, 2.9 + 0.5 * 0.4 - 2 * 0.8]))
    # C = I - phi phi' / 2.25; phi' C phi = 1.25 - 1.25² / 2.25 for the item itself
    torch.testing.assert_close(taste[0].square(), torch.tensor(1.25 - 1.25**2 / 2.25))


def test_doubt_about_an_item_is_noise_of_its_rating():
    """With S = x I a first rating's noise is 1 + x (1 + E w²) = 1 + 2 x, in adaptation and in prediction."""
    x = 0.3
    mean, std, taste = scores(x, ratings([0], [5.0]))
    gain = 1.8 / (1 + 2 * x + 1.25)
    torch.testing.assert_close(mean[0], torch.tensor(3.2 + 1.25 * gain))
    variance = torch.eye(2) - torch.tensor([[0.25, 0.5], [0.5, 1.0]]) / (1 + 2 * x + 1.25)
    phi = torch.tensor([0.5, 1.0])
    expected = phi @ variance @ phi + x * (1 + variance[1, 1] + gain**2)
    torch.testing.assert_close(taste[0].square(), expected)
    torch.testing.assert_close(std[0].square(), expected + 1)


def test_two_halves_of_a_rating_are_a_rating():
    """Weights divide the noise, where the item is known."""
    once = scores(0.0, ratings([0], [5.0]))
    halves = scores(0.0, ratings([0, 0], [5.0, 5.0], [0.5, 0.5]))
    for one, two in zip(once, halves, strict=True):
        torch.testing.assert_close(one, two)


def test_draws_have_the_posterior_s_moments_jointly():
    """Means, variances and the correlation between items of 20,000 draws are those of w, items known exactly."""
    recommender, table = known_model(1e-12)
    states = recommender.adapt(ratings([0], [5.0]), table, 0)
    draws = recommender.sample(states, table, 20_000, torch.Generator().manual_seed(0))[:, 0]  # (n, 2)
    phi = torch.tensor([[0.5, 1.0], [0.5, -2.0]])
    covariance = phi @ (torch.eye(2) - torch.outer(phi[0], phi[0]) / 2.25) @ phi.T
    torch.testing.assert_close(draws.T.cov(), covariance, atol=0.1, rtol=0.03)
    torch.testing.assert_close(draws.mean(0), recommender.score(states, table).mean[0], atol=0.05, rtol=0)


def test_the_root_of_tastes_is_their_joint_covariance():
    """In closed form for `bayes`, and estimated by joint draws for whoever has none: the same but for chance."""
    recommender, table = known_model(0.0)
    state = recommender.adapt(ratings([1], [4.0]), table, 0)
    generator = torch.Generator().manual_seed(0)
    exact = recommender.taste_root(state, table, 0, generator)[0]  # (2, P)
    drawn = Recommender.taste_root(recommender, state, table, 40_000, generator)[0]
    spread = recommender.score(state, table).taste_std
    assert spread is not None
    torch.testing.assert_close(exact.square().sum(1), spread[0].square())
    torch.testing.assert_close(drawn @ drawn.T, exact @ exact.T, atol=0.02, rtol=0.02)
    first = torch.tensor([1])
    torch.testing.assert_close(recommender.taste_root(state, table, 0, generator, first)[0], exact[1:])


def test_without_factors_it_is_a_shrunken_user_bias():
    """c w_0 = sum of residuals / (n + s² / c²): with c = .5 and noise 1, residuals 1 and 3 give 4 / 6."""
    recommender = Bayes(BayesConfig(n_factors=0, choice_dispersion=None), Schema(domains=[Domain(name="movies")]))
    recommender.domain_mean.fill_(MEAN)
    recommender.loading.fill_(LOADING)
    columns = {name: torch.zeros(2, 1) for name in ("mean", "covariance", "choice", "lift")}
    columns |= {"noise": torch.ones(2), "new": torch.zeros(2)}
    table = ItemTable(columns, torch.zeros(2).long(), torch.ones(2).bool())
    answer = recommender.score(recommender.adapt(ratings([0, 1], [4.0, 6.0]), table, 0), table)
    torch.testing.assert_close(answer.mean, torch.full((1, 2), MEAN + 4 / 6))


def test_choices_tell_of_taste_without_a_rating():
    """Two choices of item 0 with δ = .5 count as one: precision 1 + C, precision times mean z + C μ, ratings apart."""
    recommender, table = known_model(0.0, dispersion=0.5)
    recommender.choice_spread[0, 1, 1] = 0.25
    recommender.choice_pull[0, 1] = 0.05
    table = table.with_rows(torch.tensor([0, 1]), {**table.columns, "noise": torch.full((2,), 1e9)})
    chosen = ratings([0, 0], [5.0, 1.0])
    ignored = recommender.adapt(chosen, table, 0)  # content rows: nobody knows who chooses them
    torch.testing.assert_close(ignored[0, :2], torch.zeros(2), atol=1e-6, rtol=0)
    known = ItemTable(table.columns, table.domain, torch.ones(2, dtype=torch.bool))
    state = recommender.adapt(chosen, known, 0)
    torch.testing.assert_close(state[0, :2], torch.tensor([0.0, (0.3 + 0.05) / 1.25]), atol=1e-6, rtol=1e-6)
    # the third choice takes n / (1 + n / 2) from 1 to 1.2
    torch.testing.assert_close(state[0, -2], torch.tensor(0.2))


def test_who_rates_an_item_is_likelier_to_like_it():
    """The mean is that of a rating that is given: λ φ' C z above the taste, λ = 1 / (1 + δ) before any choice."""
    recommender, table = known_model(0.0, dispersion=0.5)
    mean = recommender.score(recommender.adapt(ratings([], []), table, 0), table).mean[0]
    torch.testing.assert_close(mean, torch.tensor([3.2 + 0.4 / 1.5, 2.9]))


def test_who_chooses_what_is_good_is_believed_to_do_so_again_where_an_item_is_new():
    """γ = .5, κ = 1 and two choices of item 0, .2 better than usual: q = .4 / 3; nothing is added to what is known."""
    recommender, table = known_model(0.0, dispersion=0.5)
    recommender.quality.slope.fill_(0.5)
    recommender.quality.shrinkage.fill_(1.0)
    state = recommender.adapt(ratings([0, 0], [5.0, 1.0]), table, 0)
    told = recommender.means(state, table)[0]
    half_known = ItemTable({**table.columns, "new": torch.tensor([0.0, 0.5])}, table.domain, table.trained)
    added = recommender.means(state, half_known)[0] - told
    torch.testing.assert_close(added, torch.tensor([0.0, 0.5 * 0.5 * 0.4 / 3]))
    torch.testing.assert_close(recommender.score(state, half_known).mean[0] - told, added)


def test_choice_vectors_point_to_where_an_item_s_raters_stand(fitted: tuple[World, Bayes, Fitted]):
    """Items that only one side of the users rates get vectors of that side; centred, and none where nobody rated."""
    data = fitted[0].training
    side = torch.zeros(data.n_users, 1, dtype=torch.float64)
    seen = data.interactions
    side[seen.users[seen.items == 3]] = 1.0
    choices = fit_choices(data, side, torch.zeros(data.n_users, 1, 1, dtype=torch.float64))
    of_domain = data.items.domain == data.items.domain[3]
    assert choices.vectors[of_domain, 0].argmax() == (of_domain.nonzero().flatten() == 3).nonzero()
    counts = item_counts(data).double()
    for d in range(2):
        popularity = counts * (data.items.domain == d)
        torch.testing.assert_close(popularity @ choices.vectors, torch.zeros(1).double(), atol=1e-9, rtol=0)
    assert (choices.vectors[counts == 0] == 0).all()


@pytest.fixture(scope="module")
def fitted() -> tuple[World, Bayes, Fitted]:
    world = make_world(2)
    recommender = Bayes(BayesConfig(n_factors=3, iterations=20), world.data.schema)
    return world, recommender, recommender.fit(world.training, FitOptions())


def test_evidence_removes_uncertainty(fitted: tuple[World, Bayes, Fitted]):
    """For every item, the more is known of a user the smaller the share of doubt that is theirs, in the mean."""
    world, recommender, table = fitted[0], fitted[1], fitted[2].table
    doubts = []
    for size in (0, 3, 12):
        states = recommender.adapt(world.evidence(world.held, size), table, 0)
        taste = recommender.score(states, table).taste_std
        assert taste is not None
        doubts.append(taste.mean())
    assert doubts[0] > doubts[1] > doubts[2]


def test_one_domain_tells_of_the_other(fitted: tuple[World, Bayes, Fitted]):
    """Ratings of films alone bring the answers for books nearer to the truth: both share one taste."""
    world, recommender, table = fitted[0], fitted[1], fitted[2].table
    evidence = world.evidence(world.held, 12)
    films_only = Evidence(
        **{**vars(evidence), "weights": evidence.weights * (table.domain[evidence.items] == 0)},
    )
    unseen = world.unseen(1)
    loss = [
        (recommender.score(recommender.adapt(e, table, 1), table).mean - world.truth[world.held])[unseen]
        .square()
        .mean()
        for e in (evidence.emptied(), films_only)
    ]
    assert loss[1] < 0.9 * loss[0]


def test_intervals_cover_what_they_promise(fitted: tuple[World, Bayes, Fitted]):
    """About 90 % of held-out people's ratings lie within 1.645 std of the mean, with and without evidence."""
    world, recommender, table = fitted[0], fitted[1], fitted[2].table
    seen = world.data.interactions
    rows = torch.isin(seen.users, world.held) & (seen.kinds == 0)
    user, item, value = torch.searchsorted(world.held, seen.users[rows]), seen.items[rows], seen.values[rows]
    later = world.unseen(0)[user, item]
    for size in (0, 12):
        answer = recommender.score(recommender.adapt(world.evidence(world.held, size), table, 0), table)
        assert answer.std is not None
        inside = (answer.mean[user, item] - value).abs() <= 1.645 * answer.std[user, item]
        assert 0.86 <= float(inside[later].float().mean()) <= 0.97


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValueError, match="n_factor"):
        BayesConfig.model_validate({"n_factor": 3})
    with pytest.raises(ValueError, match="n_factors"):
        BayesConfig(n_factors=-1)


def embedded(texts: list[str], device: torch.device | str = "cpu") -> Tensor:
    """Stands for the language model: `good` and `bad` lie apart in one of many directions."""
    noise = torch.randn(len(texts), sentences.EMBEDDING_SIZE, generator=torch.Generator().manual_seed(1))
    side = torch.tensor([{"good": 1.0, "bad": -1.0}.get(text, 0.0) for text in texts])
    return 0.1 * noise + 5 * side[:, None] * torch.eye(sentences.EMBEDDING_SIZE)[7]


def test_a_text_foretells_what_people_think_of_an_unseen_item(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentences, "embed", embedded)
    texts = ["good", "bad"] * 10
    rated = [(user, item, 5.0 if texts[item] == "good" else 2.0) for user in range(20) for item in range(16)]
    data = tiny(rated, domain=[0] * 20, texts=texts)
    bayes = Bayes(BayesConfig(n_factors=1, iterations=20, sentence_size=2), data.schema)
    table = bayes.fit(data, FitOptions()).table
    nobody = data.evidence(torch.tensor([0])).emptied()
    mean = bayes.score(bayes.adapt(nobody, table, 0), table).mean[0]
    assert (mean[16::2] > 4.5).all()
    assert (mean[17::2] < 2.5).all()
    assert bayes.sentences([""]).tolist() == [[0.0, 0.0]]


def symmetric(size: int) -> Tensor:
    root = torch.randn(4, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return root @ root.mT + torch.eye(size)


def test_packing_loses_nothing():
    matrices = symmetric(5)
    torch.testing.assert_close(unpack(pack(matrices), 5), matrices)
    vectors = matrices[:, 0]
    torch.testing.assert_close(pack_outer(vectors), pack(vectors[:, :, None] * vectors[:, None, :]))


def test_an_inner_product_of_packed_matrices_is_a_trace():
    one, other = symmetric(4), symmetric(4).flip(0)
    trace = torch.diagonal(one @ other, dim1=1, dim2=2).sum(1)
    torch.testing.assert_close((pack_dual(one) * pack(other)).sum(1), trace)


def test_posterior_inverts_the_precision():
    precision = symmetric(3)
    shift = torch.ones(4, 3, dtype=torch.float64)
    mean, root = posterior(precision, shift)
    torch.testing.assert_close(precision @ (root.mT @ root), torch.eye(3).double().expand(4, 3, 3))
    torch.testing.assert_close((precision @ mean[..., None])[..., 0], shift)


def test_regression_keeps_the_field_that_tells_and_shrinks_the_one_that_does_not():
    """Weights of the telling field come back; the other field's prior variance falls far below."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 20, generator=generator, dtype=torch.float64)
    truth = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    regression = FieldRegression(2, [10, 10])
    for _ in range(30):
        regression.update(features, 1.0 + features[:, :10] @ truth + noise, torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(regression.weights[1:11], truth, atol=0.06, rtol=0)
    torch.testing.assert_close(regression.weights[0], torch.ones(2).double(), atol=0.06, rtol=0)
    assert (regression.variance[:, 1] < 0.01 * regression.variance[:, 0]).all()
    torch.testing.assert_close(regression.noise, 0.25 * torch.eye(2).double(), atol=0.03, rtol=0)


def test_generosity_counts_alike_in_all_domains_in_steps_of_their_scales() -> None:
    """People are as generous on a scale of eight as on one of four; of half of them one domain is known alone."""
    level = torch.linspace(-1, 1, 40)
    quality = torch.linspace(-0.5, 0.5, 10)
    films = [(u, i, 3 + float(level[u] + quality[i])) for u in range(40) for i in range(10) if u % 4 != 1]
    books = [(u, 10 + i, 4 + 2 * float(level[u] + quality[i])) for u in range(40) for i in range(10) if u % 4 != 3]
    data = tiny(films + books, domain=[0] * 10 + [1] * 10)
    recommender = Bayes(BayesConfig(n_factors=0), data.schema)
    table = recommender.fit(data, FitOptions()).table
    torch.testing.assert_close(recommender.loading[1], 2 * recommender.loading[0])
    generous = recommender.adapt(ratings(list(range(10)), (4 + quality).tolist()), table, 1)
    torch.testing.assert_close(recommender.score(generous, table).mean[0, 10:], 6 + 2 * quality, atol=0.15, rtol=0)
