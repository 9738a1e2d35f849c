"""What encoders foretell of items that nobody has touched, and what each of them alone can see."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from models import checkpoint
from models.datasets.dataset import Dataset, item_content
from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables, read, write
from models.layers import ImageCnn, MultiHotMlp, TextCnn
from models.recommender import FitOptions
from models.recommenders.content import Content, ContentConfig
from models.training import sentences
from models.training.biases import BiasSettings, fit_biases
from models.training.encoders import ItemEncoder, Targets
from models.training.factorisation import Problem
from tests.laws.world import make_world

N_USERS, N_FILMS, N_UNSEEN = 120, 240, 60
WARM, COLD = ("crimson", "orange", "gold"), ("navy", "teal", "indigo")
FAST = {"text_size": 0, "n_factors": 4, "n_folds": 2, "epochs": 15, "hidden_size": 16}


def rendered(folder: Path) -> tuple[Dataset, Tensor]:
    """Films whose posters alone tell who will like them, in a folder, and the liking (U, N) of all.

    Half of the people like warm colours and dislike cold ones, the other half the reverse; shapes, sizes and places
    mean nothing, and neither do the titles. The last `N_UNSEEN` films have no rating.
    """
    rng = np.random.default_rng(0)
    (folder / "posters").mkdir(parents=True)
    warm = rng.random(N_FILMS) < 0.5
    for i in range(N_FILMS):
        image = Image.new("RGB", (48, 64), str(rng.choice(["white", "black", "grey"])))
        x, y, size = rng.integers(0, 16), rng.integers(0, 24), rng.integers(18, 32)
        draw = ImageDraw.Draw(image)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + size, y + size), fill=str(rng.choice(WARM if warm[i] else COLD)))
        image.save(folder / "posters" / f"{i}.png")
    taste = np.where(np.arange(N_USERS) % 2 == 0, 1.0, -1.0)
    like = taste[:, None] * np.where(warm, 1.0, -1.0)
    rows = [
        f"u{u},films,{i:03},{np.clip(np.rint(3 + 1.2 * like[u, i] + 0.5 * rng.standard_normal()), 1, 5):.0f}"
        for u in range(N_USERS)
        for i in rng.choice(N_FILMS - N_UNSEEN, 25, replace=False)
    ]
    items = [f"films,{i:03},Film {i},posters/{i}.png" for i in range(N_FILMS)]
    (folder / "dataset.toml").write_text(
        'name = "gallery"\n[domains.films]\nrating_min = 1\nrating_max = 5\n'
        '[domains.films.item_attributes]\nposter = "image"\n'
    )
    (folder / "interactions.csv").write_text("\n".join(["user_id,domain,item_id,value", *rows, ""]))
    (folder / "items.csv").write_text("\n".join(["domain,item_id,title,poster", *items, ""]))
    data = read(folder)
    order = [int(user.removeprefix("u")) for user in data.user_ids]
    return data, torch.from_numpy(like[order])


def wins(data: Dataset, like: Tensor, **settings: object) -> float:
    """Of pairs of unseen films of which a person would like one only, the share that comes in the right order."""
    content = Content(ContentConfig.model_validate(FAST | settings), data.schema)
    table = content.fit(data, FitOptions(seed=0)).table
    users = torch.arange(data.n_users)
    with torch.no_grad():
        scores = content.score(content.adapt(data.evidence(users), table, 0), table).mean[:, -N_UNSEEN:]
    liked = like[:, -N_UNSEEN:] > 0
    ahead = (scores[:, :, None] > scores[:, None, :]).double() + 0.5 * (scores[:, :, None] == scores[:, None, :])
    return float(ahead[liked[:, :, None] & ~liked[:, None, :]].mean())


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Tensor]:
    return rendered(tmp_path_factory.mktemp("gallery") / "folder")


def test_pictures_tell_of_unseen_films_where_nothing_else_does(gallery: tuple[Dataset, Tensor]) -> None:
    """With the convolutions nine pairs of ten are right; without pictures it is a coin that is thrown."""
    data, like = gallery
    assert wins(data, like) == pytest.approx(0.5, abs=0.05)
    assert wins(data, like, encoders=["linear", "mlp"]) == pytest.approx(0.5, abs=0.05)
    assert wins(data, like, encoders=["image_cnn"]) > 0.9


def test_a_checkpoint_embeds_new_pictures_as_the_fit_did(gallery: tuple[Dataset, Tensor], tmp_path: Path) -> None:
    """Without the folder: rows of unseen items come out of the attributes that the checkpoint carries."""
    data, _ = gallery
    content = Content(ContentConfig.model_validate(FAST | {"encoders": ["image_cnn"], "epochs": 2}), data.schema)
    fitted = content.fit(data, FitOptions(seed=0))
    path = checkpoint.save(
        tmp_path / "saved", content, fitted, data, metrics={}, seed=0, fit_seconds=0, code_version="0"
    )
    loaded = checkpoint.load(path)
    some = loaded.items[-N_UNSEEN:]
    encoder = loaded.card.schema_.item_attributes
    with torch.no_grad():
        rows = loaded.recommender.embed_items(
            item_content(encoder, [item.title for item in some], [item.attributes for item in some]), 0
        )
    torch.testing.assert_close(rows["features"], fitted.table["features"][-N_UNSEEN:])
    torch.testing.assert_close(rows["bias"], fitted.table["bias"][-N_UNSEEN:])


def test_words_tell_of_unseen_films(tmp_path: Path) -> None:
    """A word of the plot says who likes it, and stands anywhere among words that say nothing."""
    rng = np.random.default_rng(1)
    filler = [f"word{i}" for i in range(30)]
    funny = rng.random(N_FILMS) < 0.5
    plots = []
    for i in range(N_FILMS):
        words = list(rng.choice(filler, 12))
        words[rng.integers(12)] = str(rng.choice(["clown", "pie"] if funny[i] else ["ghost", "crypt"]))
        plots.append(" ".join(words))
    taste = np.where(np.arange(N_USERS) % 2 == 0, 1.0, -1.0)
    like = taste[:, None] * np.where(funny, 1.0, -1.0)
    events = [(u, int(i)) for u in range(N_USERS) for i in rng.choice(N_FILMS - N_UNSEEN, 25, replace=False)]
    noise = 0.5 * rng.standard_normal(len(events))
    data = write(
        Tables(
            Description(
                name="plots",
                domains={"films": DomainDescription(rating_min=1, rating_max=5, item_attributes={"plot": "text"})},
            ),
            pl.DataFrame(
                {
                    "user_id": [f"{u:03}" for u, _ in events],
                    "domain": "films",
                    "item_id": [f"{i:03}" for _, i in events],
                    "value": [
                        float(np.clip(np.rint(3 + 1.2 * like[u, i] + e), 1, 5))
                        for (u, i), e in zip(events, noise, strict=True)
                    ],
                }
            ),
            items=pl.DataFrame(
                {
                    "domain": "films",
                    "item_id": [f"{i:03}" for i in range(N_FILMS)],
                    "title": [f"Film {i}" for i in range(N_FILMS)],
                    "plot": plots,
                }
            ),
        ),
        tmp_path / "plots",
    )
    assert wins(data, torch.from_numpy(like)) == pytest.approx(0.5, abs=0.05)
    assert wins(data, torch.from_numpy(like), encoders=["text_cnn"], epochs=30) > 0.9


def test_targets_are_the_squared_error_of_an_item_s_ratings() -> None:
    """h' A h - 2 c' h + e by hand: the mean over an item's ratings, whatever h."""
    data = make_world(2).training
    biases = fit_biases(data, BiasSettings())
    problem = Problem.of(data, biases)
    targets = Targets.of(problem, 3, torch.Generator().manual_seed(0))
    rows = torch.randn(data.n_items, 4, generator=torch.Generator().manual_seed(1))
    item = 5
    own = problem.items == item
    one = torch.tensor([item])
    constant = torch.zeros_like(rows)
    constant[:, 0] = 0.7
    y = problem.values - problem.user_bias[problem.users]
    weighted = problem.weights[own] * (y[own] - 0.7).square()
    by_hand = weighted.sum() / problem.weights[own].sum()
    torch.testing.assert_close(targets.error(constant[one], one), by_hand)
    assert targets.error(rows[one], one) > 0
    best = torch.linalg.lstsq(targets.gram[item], targets.shift[item]).solution
    assert targets.error(best[None], one) <= targets.error(targets.rows[one], one) + 1e-5


def test_a_row_comes_from_encoders_that_have_not_seen_the_item() -> None:
    """Other ratings of one item leave its own foretold row as it is, but for what users' factors make of them."""
    world = make_world(1)
    data = world.training
    config = ContentConfig.model_validate({"encoders": ["linear"], "n_factors": 3, "n_folds": 4})
    problem = Problem.of(data, fit_biases(data, BiasSettings()))
    encoder = ItemEncoder(config, data.schema)
    rows = encoder.learn(data.items.content, data.items.domain, problem, FitOptions(seed=0))
    everything = encoder(data.items.content, data.items.domain)
    touched = torch.zeros(data.n_items, dtype=torch.bool)
    touched[data.interactions.items] = True
    torch.testing.assert_close(rows[~touched], everything[~touched])
    each = encoder._foretold(encoder._inputs(data.items.content, data.items.domain))  # (folds, N, 1 + K)
    from_one = (each - rows).abs().amax(dim=2) < 1e-6
    assert (from_one.sum(dim=0)[touched] == 1).all()
    shares = from_one[:, touched].sum(dim=1)
    assert shares.max() - shares.min() <= 1


def test_a_picture_that_is_not_there_says_nothing() -> None:
    torch.manual_seed(0)
    said = ImageCnn()(torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 200)]).to(torch.uint8))
    assert not said[0].any()
    assert said[1].any()


def test_words_are_found_wherever_they_stand() -> None:
    """The same words at another place, the same answers: what is strongest anywhere counts."""
    torch.manual_seed(0)
    cnn = TextCnn(50, 8, 0.3).eval()
    early, late = torch.zeros(2, 20, dtype=torch.long)
    early[3:6] = late[11:14] = torch.tensor([7, 8, 9])
    torch.testing.assert_close(cnn(early[None]), cnn(late[None]))
    assert not torch.allclose(cnn(early[None]), cnn(torch.tensor([[9, 8, 7] + 17 * [0]])))


def test_attributes_are_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    mlp = MultiHotMlp(6, 4, 0.5)
    columns = torch.ones(3, 6)
    assert not torch.equal(mlp(columns), mlp(columns))
    mlp.eval()
    assert torch.equal(mlp(columns), mlp(columns))


def test_without_encoders_there_are_no_weights_of_them() -> None:
    world = make_world(1)
    names = Content(ContentConfig(), world.data.schema).state_dict().keys()
    assert not any("encoder" in name or "foretold" in name for name in names)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, sentences.PACKAGE, None)
    with pytest.raises(ValueError, match=r"warmstart\[text\]"):
        ContentConfig(encoders=("sentence",))


@pytest.mark.skipif(not sentences.available(), reason="the extra `text` is not installed")
def test_sentences_that_mean_the_same_are_near() -> None:
    """Without a word in common."""
    a, b, c = sentences.embed(
        ["A detective hunts a killer.", "Police search for the murderer.", "A baker falls in love."]
    )
    assert torch.cosine_similarity(a, b, dim=0) > torch.cosine_similarity(a, c, dim=0) + 0.1
    assert sentences.embed([]).shape == (0, sentences.EMBEDDING_SIZE)
