"""The engine's answers: batches that equal single answers, the best open items, parts mixed by their weights."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine.answering import Known, Question, answer
from app.engine.batching import Batcher, QueueFull
from app.engine.runtime import Runtime
from app.engine.serving import ServedDomain
from models.blend import Blend, BlendPart, Bucket
from tests.app.test_engine import BOOKS, FILMS, item, world_items
from tests.laws.world import World


@pytest.fixture(scope="module")
def runtime(trained: Path, world: World) -> Runtime:
    """Content and bayes in service for the films; a new item, one that is away, and a domain that neither knows."""
    made = Runtime(trained, torch.device("cpu"))
    new = item(1000, attributes={"genres": ["genre1"], "year": 1999})
    away = item(1001, attributes={"genres": ["genre2"]}, available=False)
    made.follow(1, [FILMS, BOOKS], [*world_items(world), new, away, item(1002, "books")])
    names = ("content", "bayes")
    loaded = {name: made.load(name) for name in names}
    made.deploy({("films", "content"): "content", ("films", "collaborative"): "bayes"}, loaded)
    return made


def questions(runtime: Runtime, n: int, k: int = 10) -> list[Question]:
    """Users with from nothing to many interactions, some of them in a domain that no part knows, some filters."""
    domain = runtime.now.domains["films"]
    generator = np.random.default_rng(3)
    asked = []
    for i in range(n):
        size = (0, 1, 4, 5, 9, 25)[i % 6]
        local = generator.choice(80, size, replace=False)
        positions = domain.shelf.positions[local]
        if i % 4 == 3 and size:
            positions[0] = runtime.now.catalogue.shelves["books"].positions[0]
        known = Known(
            positions,
            generator.integers(1, 6, size).astype(np.float32),
            np.where(generator.random(size) < 0.3, 0.25, 1).astype(np.float32),
            np.full(size, np.nan),
            ["rating"] * size,
            {"group": f"group{i % 3}", "age": 20 + i} if i % 2 else {},
        )
        only = np.sort(generator.choice(82, 30, replace=False)) if i % 5 == 4 else None
        asked.append(Question(domain, known, size, k, np.unique(local), only))
    return asked


def test_batched_answers_equal_single_ones(runtime: Runtime) -> None:
    asked = questions(runtime, 24)
    for question, together in zip(asked, answer(asked), strict=True):
        alone = answer([question])[0]
        np.testing.assert_allclose(together.mean, alone.mean, atol=1e-5)
        assert together.std is not None
        assert alone.std is not None
        np.testing.assert_allclose(together.std, alone.std, atol=1e-5)
        different = np.flatnonzero(together.local != alone.local)
        assert all(np.isclose(alone.mean[i], together.mean[i], atol=1e-5) for i in different)
        for a, b in zip(together.parts, alone.parts, strict=True):
            assert a.weight == b.weight
            if b.state is not None:
                assert a.state is not None
                torch.testing.assert_close(a.state.state, b.state.state, atol=1e-5, rtol=1e-5)
                assert a.state.support_size == b.state.support_size
                assert a.state.loss_after == pytest.approx(b.state.loss_after, abs=1e-5)


def test_answers_are_the_best_open_items_in_order(runtime: Runtime) -> None:
    """Against a full sort of all scores, with what is blocked, away or not asked for taken out."""
    for question in questions(runtime, 24):
        made = answer([question])[0]
        everything = replace(question, k=0, blocked=np.empty(0, np.int64), only=np.arange(82))
        mean = answer([everything])[0].mean
        open_ = set(range(82)) if question.only is None else set(question.only.tolist())
        open_ -= {*question.blocked.tolist(), *question.domain.shelf.unavailable.tolist()}
        best = sorted((mean[i] for i in open_), reverse=True)[: question.k]
        assert set(made.local.tolist()) <= open_
        assert len(set(made.local.tolist())) == len(made.local) == min(question.k, len(open_))
        np.testing.assert_allclose(made.mean, best, atol=1e-5)


def test_a_cached_state_gives_the_same_answer(runtime: Runtime) -> None:
    asked = questions(runtime, 12)
    fresh = answer(asked)
    cached = [replace(q, states=[p.state for p in a.parts]) for q, a in zip(asked, fresh, strict=True)]
    for mixed in (cached, [c if i % 2 else q for i, (c, q) in enumerate(zip(cached, asked, strict=True))]):
        for a, b in zip(answer(mixed), fresh, strict=True):
            np.testing.assert_allclose(a.mean, b.mean, atol=1e-5)


def test_scores_are_the_parts_scores_mixed_by_their_weights(runtime: Runtime) -> None:
    for question, made in zip(questions(runtime, 12), answer(questions(runtime, 12)), strict=True):
        mixed = sum(part.weight * part.mean for part in made.parts if part.mean is not None)
        np.testing.assert_allclose(made.mean, np.clip(mixed, 1, 5), atol=1e-5)
        assert sum(part.weight for part in made.parts) == pytest.approx(1)
        assert [part.weight for part in made.parts] == question.domain.weights(question.support_size)


def learnt(digests: dict[str, str], domain: str = "films") -> Blend:
    """A blend whose parts stand in the other order than the engine's."""
    return Blend(
        domain=domain,
        parts=[
            BlendPart(role="collaborative", digest=digests["collaborative"], recommender="bayes"),
            BlendPart(role="content", digest=digests["content"], recommender="content"),
        ],
        buckets=[
            Bucket(min_support=0, weights=[0.1, 0.9], std_scale=2, ranking_weights=[3.0, 1.0]),
            Bucket(min_support=5, weights=[0.7, 0.3], ranking_weights=[2.0, 5.0]),
        ],
    )


def test_a_learnt_blend_is_read_by_role(runtime: Runtime) -> None:
    """In whatever order the file has the parts."""
    domain = runtime.now.domains["films"]
    digests = {part.role: part.served.digest for part in domain.parts}
    with_blend = ServedDomain(domain.shelf, domain.catalogue, domain.parts, learnt(digests), None)
    assert with_blend.schedule == "learnt"
    assert with_blend.weights(0) == [0.9, 0.1]
    assert with_blend.weights(7) == [0.3, 0.7]
    assert (with_blend.std_scale(4), with_blend.std_scale(5)) == (2, 1)
    assert with_blend.has_ranking
    assert with_blend.ranking_weights(0) == [1.0, 3.0]
    assert with_blend.ranking_weights(7) == [5.0, 2.0]
    assert with_blend.centres(0) == [0.0, 0.0]


def test_lists_are_ordered_by_the_ranking_weights_unless_ratings_are_asked_for(runtime: Runtime) -> None:
    domain = runtime.now.domains["films"]
    digests = {part.role: part.served.digest for part in domain.parts}
    with_blend = ServedDomain(domain.shelf, domain.catalogue, domain.parts, learnt(digests), None)
    asked = replace(questions(runtime, 1)[0], domain=with_blend, support_size=0)
    by_preference, by_rating = answer([asked, replace(asked, by_rating=True)])
    for made, weights in ((by_preference, with_blend.ranking_weights(0)), (by_rating, with_blend.weights(0))):
        assert [part.ranking_weight for part in made.parts] == weights
    scores = [part.mean for part in by_rating.parts if part.mean is not None]
    assert (np.diff(sum(w * s for w, s in zip(with_blend.weights(0), scores, strict=True))) <= 1e-5).all()
    for made in (by_preference, by_rating):  # whatever the order, a score is the rating to expect
        mixed = sum(part.weight * part.mean for part in made.parts if part.mean is not None)
        np.testing.assert_allclose(made.mean, np.clip(mixed, 1, 5), atol=1e-5)


def test_a_blend_file_counts_for_its_digests_only(trained: Path, world: World, tmp_path: Path) -> None:
    """For any other combination, and for a file that cannot be read, the fixed schedule stands in."""
    made = Runtime(tmp_path, torch.device("cpu"))
    for name in ("content", "bayes", "bias"):
        (tmp_path / name).symlink_to(trained / name)
    made.follow(1, [FILMS], world_items(world))
    loaded = {name: made.load(name) for name in ("content", "bayes", "bias")}
    digests = {"content": loaded["content"].digest, "collaborative": loaded["bayes"].digest}
    (tmp_path / "blend.json").write_text(learnt(digests).model_dump_json())
    (tmp_path / "blend-broken.json").write_text("{")
    both = {("films", "content"): "content", ("films", "collaborative"): "bayes"}
    made.deploy(both, loaded)
    assert made.now.domains["films"].schedule == "learnt"
    made.deploy(both | {("films", "collaborative"): "bias"}, loaded)
    assert made.now.domains["films"].schedule == "fixed"
    made.deploy({("films", "content"): "content"}, loaded)
    assert made.now.domains["films"].weights(0) == [1.0]
    (tmp_path / "blend.json").write_text(learnt(digests, "books").model_dump_json())
    made.deploy(both, loaded)
    assert made.now.domains["films"].schedule == "fixed"


# batches


async def test_questions_that_wait_together_are_answered_each_their_own(runtime: Runtime) -> None:
    batcher = Batcher(max_batch=8, max_queue=100)
    batcher.start()
    asked = questions(runtime, 50)
    try:
        answers = await asyncio.gather(*(batcher.ask(question) for question in asked))
    finally:
        await asyncio.to_thread(batcher.close)
    for question, made in zip(asked, answers, strict=True):
        np.testing.assert_allclose(made.mean, answer([question])[0].mean, atol=1e-5)


async def test_a_bad_question_fails_alone(runtime: Runtime) -> None:
    batcher = Batcher(max_batch=8, max_queue=100)
    batcher.start()
    good = questions(runtime, 7)
    bad = replace(good[0], known=replace(good[0].known, positions=np.array([10_000])))
    try:
        made = await asyncio.gather(*(batcher.ask(q) for q in [*good, bad]), return_exceptions=True)
    finally:
        await asyncio.to_thread(batcher.close)
    assert [isinstance(one, Exception) for one in made] == [False] * 7 + [True]


async def test_a_full_queue_refuses(runtime: Runtime) -> None:
    """Those that got in are answered when the thread begins."""
    batcher = Batcher(max_batch=2, max_queue=3)
    batcher._loop = asyncio.get_running_loop()
    asked = questions(runtime, 3)
    waiting = [asyncio.create_task(batcher.ask(question)) for question in asked]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await batcher.ask(asked[0])
    batcher.start()
    assert len(await asyncio.gather(*waiting)) == 3
    await asyncio.to_thread(batcher.close)
    assert not any(thread.name == "inference" and thread is batcher._thread for thread in threading.enumerate())
