"""Profiles that attract and repel, items and people nobody has met, texts."""

import pytest
import torch

from models.recommender import FitOptions, ItemContent
from models.recommenders.content import Content, ContentConfig
from models.training.text import TextProjection
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

SIMILARITIES = ["ridge", "cosine", "euclidean"]


def two_camps(**settings: object) -> tuple[Content, object]:
    """Half of the people love items of feature +1 and hate those of -1, the other half the reverse."""
    ratings = [(u, i, 5 if (u + i) % 2 == 0 else 1) for u in range(30) for i in range(10)]
    features = torch.tensor([[1.0], [-1.0]]).repeat(6, 1)  # the last two are untouched
    attributes = torch.tensor([[1.0], [-1.0]]).repeat(15, 1)
    data = tiny(ratings, domain=[0] * 12, features=features, attributes=attributes)
    content = Content(ContentConfig.model_validate({"text_size": 0, **settings}), data.schema)
    return content, content.fit(data, FitOptions()).table


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_liking_attracts_and_disliking_repels(similarity):
    """One item loved: untouched items like it rise, the others fall. One item hated: the reverse."""
    content, table = two_camps(similarity=similarity, attribute_rank=0)
    loved, hated = (
        content.score(content.adapt(evidence((0, value), attributes=[0.0]), table, 0), table).mean[0, -2:]
        for value in (5, 1)
    )
    assert loved[0] > loved[1] + 0.2
    assert hated[1] > hated[0] + 0.2


def test_attributes_alone_tell_people_apart():
    """Without a single interaction the two camps get opposite lists; with rank 0 they get the same."""
    content, table = two_camps()
    plus, minus = (
        content.score(content.adapt(evidence(attributes=[sign]), table, 0), table).mean[0, -2:] for sign in (1.0, -1.0)
    )
    assert plus[0] > plus[1] + 1
    assert minus[1] > minus[0] + 1
    content, table = two_camps(attribute_rank=0, attribute_prior=False)
    plus, minus = (content.adapt(evidence(attributes=[sign]), table, 0) for sign in (1.0, -1.0))
    assert torch.equal(plus, minus)


def test_an_item_nobody_touched_is_scored_as_its_content():
    content, table = two_camps()
    grown = table.appended(content.embed_items(ItemContent(torch.tensor([[1.0]]), ["new"]), 0), 0)
    scores = content.score(content.adapt(evidence((0, 5), attributes=[1.0]), grown, 0), grown).mean[0]
    torch.testing.assert_close(scores[-1], scores[-3])  # the untouched item with the same feature


def test_data_without_content_or_attributes_falls_back_on_biases():
    data = tiny([(0, 0, 5), (0, 1, 3), (1, 0, 4), (1, 1, 2)], domain=[0, 0])
    content = Content(ContentConfig(text_size=0), data.schema)
    table = content.fit(data, FitOptions()).table
    scores = content.score(content.adapt(evidence((0, 5)), table, 0), table).mean[0]
    assert scores.isfinite().all()
    assert scores[0] > scores[1]


def test_texts_that_share_words_are_near():
    text = TextProjection(size=2, n_hashes=512)
    text.learn(["laser robot", "robot orbit", "laser orbit", "kiss wedding", "wedding letter", ""], seed=0)
    robots, lasers, kisses, unknown = text(["robot", "laser", "kiss", "saddle dust"])
    assert torch.cosine_similarity(robots, lasers, dim=0) > 0.9
    assert torch.cosine_similarity(robots, kisses, dim=0).abs() < 0.1
    assert torch.equal(text([""]), torch.zeros(1, 2))
    assert unknown.norm() < 0.1


def test_texts_of_size_zero_are_ignored():
    text = TextProjection(size=0, n_hashes=512)
    text.learn(["laser"], seed=0)
    assert text(["laser"]).shape == (1, 0)
    assert sum(buffer.numel() for buffer in text.buffers()) == 0


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws_hold_for_the_other_similarities(law, similarity):
    settings = {"text_size": 4, "n_hashes": 256, "similarity": similarity}
    law(fit_case(Entry(settings, uses_attributes=True), Content, make_world(2)))
