"""The fixed schedule, the file of a learnt blend, and the mixture."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from models.blend import Blend, BlendPart, Bucket, fixed_ranking, fixed_schedule, mix
from models.recommender import Scores

PARTS = [
    BlendPart(role="collaborative", digest="aa", recommender="bayes"),
    BlendPart(role="content", digest="bb", recommender="content"),
]
BLEND = Blend(
    domain="movies",
    parts=PARTS,
    buckets=[Bucket(min_support=0, weights=[0.25, 0.75]), Bucket(min_support=5, weights=[0.9, 0.1], std_scale=1.1)],
)


@pytest.mark.parametrize(("support", "content"), [(0, 0.8), (4, 0.8), (5, 0.5), (19, 0.5), (20, 0.2), (500, 0.2)])
def test_the_fixed_schedule_hands_over_from_content_as_evidence_comes_in(support: int, content: float) -> None:
    assert fixed_schedule(["content", "collaborative"], support) == pytest.approx([content, 1 - content])


def test_what_content_leaves_goes_to_adaptive_else_transfer_else_collaborative() -> None:
    assert fixed_schedule(["content", "collaborative", "transfer", "adaptive"], 30) == [0.2, 0.0, 0.0, 0.8]
    assert fixed_schedule(["content", "collaborative", "transfer"], 30) == [0.2, 0.0, 0.8]
    assert fixed_schedule(["collaborative", "transfer"], 0) == [0.0, 1.0]
    assert fixed_schedule(["content"], 100) == [1.0]
    assert fixed_schedule([], 3) == []
    assert fixed_schedule(["collaborative", "ranking"], 3) == [1.0, 0.0]
    assert fixed_schedule(["ranking"], 3) == [0.0]


def test_a_transfer_without_anything_to_carry_leaves_its_share_to_the_next() -> None:
    assert fixed_schedule(["content", "collaborative", "transfer"], 30, source_size=0) == [0.2, 0.8, 0.0]
    assert fixed_schedule(["content", "collaborative", "transfer"], 30, source_size=1) == [0.2, 0.0, 0.8]
    assert fixed_schedule(["content", "transfer"], 30, source_size=0) == [1.0, 0.0]
    assert fixed_schedule(["transfer"], 30, source_size=0) == [1.0]
    assert fixed_ranking(["collaborative", "transfer"], 3, source_size=0) == [1.0, 0.0]


def test_without_a_learnt_blend_the_ranking_part_orders_and_ratings_break_its_ties() -> None:
    assert fixed_ranking(["content", "collaborative"], 30) == fixed_schedule(["content", "collaborative"], 30)
    content, collaborative, ranking = fixed_ranking(["content", "collaborative", "ranking"], 30)
    assert ranking == 1
    assert 0 < content < collaborative < 1e-5


def test_a_bucket_holds_until_the_next_begins() -> None:
    assert BLEND.bucket(0) == BLEND.bucket(4) == BLEND.buckets[0]
    assert BLEND.bucket(5) == BLEND.bucket(10_000) == BLEND.buckets[1]


def test_a_bucket_goes_by_what_is_known_here_and_where_the_transfer_comes_from() -> None:
    starts = [(0, 0), (0, 5), (10, 0), (10, 5)]
    buckets = [Bucket(min_source=source, min_support=support, weights=[0.5, 0.5]) for source, support in starts]
    blend = Blend(domain="movies", parts=PARTS, buckets=buckets)
    for known, there, expected in ((0, 0, 0), (7, 9, 1), (0, 10, 2), (4, 99, 2), (5, 10, 3)):
        assert blend.bucket(known, there) == buckets[expected]
    with pytest.raises(ValidationError):
        Blend(domain="movies", parts=PARTS, buckets=[*buckets[:2], buckets[3]])


def test_a_saved_blend_reads_back_equal_and_leaves_nothing_else(tmp_path: Path) -> None:
    BLEND.save(tmp_path / "blend.json")
    assert Blend.load(tmp_path / "blend.json") == BLEND
    assert [file.name for file in tmp_path.iterdir()] == ["blend.json"]


def test_a_blend_speaks_only_for_the_checkpoints_it_was_fitted_on() -> None:
    assert BLEND.applies_to({"collaborative": "aa", "content": "bb"})
    assert not BLEND.applies_to({"collaborative": "aa", "content": "cc"})
    assert not BLEND.applies_to({"collaborative": "aa"})
    assert not BLEND.applies_to({"collaborative": "aa", "content": "bb", "adaptive": "dd"})


def test_a_ranking_part_has_a_slope_instead_of_a_share() -> None:
    parts = [PARTS[0], BlendPart(role="ranking", digest="bb", recommender="ease")]
    Blend(domain="movies", parts=parts, buckets=[Bucket(min_support=0, weights=[1.0, 7.0], centres=[0.0, 0.2])])
    with pytest.raises(ValidationError):
        Blend(domain="movies", parts=parts, buckets=[Bucket(min_support=0, weights=[0.5, 0.5])])


@pytest.mark.parametrize(
    "buckets",
    [
        [Bucket(min_support=1, weights=[0.5, 0.5])],
        [Bucket(min_support=0, weights=[0.5, 0.5]), Bucket(min_support=0, weights=[0.5, 0.5])],
        [Bucket(min_support=0, weights=[0.5, 0.6])],
        [Bucket(min_support=0, weights=[-0.5, 1.5])],
        [Bucket(min_support=0, weights=[1.0])],
        [Bucket(min_support=0, weights=[0.5, 0.5], centres=[0.0])],
        [Bucket(min_support=0, weights=[0.5, 0.5], ranking_weights=[1.0, -1.0])],
        [
            Bucket(min_support=0, weights=[0.5, 0.5], ranking_weights=[1.0, 1.0]),
            Bucket(min_support=1, weights=[0.5, 0.5]),
        ],
    ],
)
def test_a_file_with_gaps_or_improper_weights_is_refused(buckets: list[Bucket]) -> None:
    with pytest.raises(ValidationError):
        Blend(domain="movies", parts=PARTS, buckets=buckets)


def test_the_mixture_is_the_weighted_mean_and_a_part_without_std_does_not_dilute_it() -> None:
    parts = [
        Scores(torch.tensor([[4.0], [4.0]]), torch.tensor([[1.0], [1.0]])),
        Scores(torch.tensor([[2.0], [2.0]])),
        Scores(torch.tensor([[10.0], [10.0]]), kind="preference"),
    ]
    weights = torch.tensor([[0.5, 0.5, 0.1], [0.0, 1.0, 0.0]])
    mixed = mix(parts, weights, torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 5.0]]))
    torch.testing.assert_close(mixed.mean, torch.tensor([[3.5], [2.0]]))
    assert mixed.std is not None
    torch.testing.assert_close(mixed.std, torch.tensor([[1.0], [1.0]]))
    assert mixed.taste_std is None
