"""Adversarial transfer: what a rating hangs on is told by features that do not tell which domain it is from.

    z_u   = LSTM(x_j, e_j x_j, e_j, t_j, w_j)_n + s sum_j w_j e_j x_j / (n + s)     user encoder
    v_i   = x_i + C CNN(words_i)                                                  item encoder
    f_ui  = G z_u * H v_i                                                         feature extractor
    r_ui  = base_ui + unit_d (w . f_ui + ...)                                     rating predictor
    L     = alpha L_source + (1 - alpha) L_target + lambda L_discriminator(reverse(w * f_ui))

Ganin et al., "Domain-Adversarial Training of Neural Networks" (JMLR 2016); the CNN is Kim's (EMNLP 2014). x_j are the
rows of what somebody rated, oldest first, e_j what the base leaves unexplained and t_j whether it is of the target. The
discriminator sees the terms whose sum is the rating, and learns to name the domain of the item; behind a gradient that
is turned round, everything before it learns to hide that. At last chosen layers are fine-tuned on the target alone.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.layers import MLP, TextCnn
from models.recommender import ItemContent
from models.training.alignment import domain_loss
from models.training.encoders import N_WORDS, hashed_words
from models.training.grounded_transfer import (
    GroundedTransfer,
    GroundedTransferSettings,
    Known,
    Stage,
    TransferLesson,
)
from models.training.lessons import opinion_size
from models.training.newest import newest
from models.training.sequence import SequenceEncoder, after

Layer = Literal["users", "items", "extractor", "predictor"]
LENGTH = 32
"""Words of a title and texts that the CNN reads."""
WORD_SIZE = 16
DISCRIMINATED = 2048
"""Pairs of each domain that the discriminator sees in a step."""


class AdversarialConfig(GroundedTransferSettings):
    """Settings of `Adversarial`."""

    hidden_size: int = Field(32, ge=1)
    """Width of the LSTM and of the discriminator's hidden layer."""
    max_history: int = Field(100, ge=1)
    """Newest interactions that the LSTM reads; the sum goes over all."""
    word_dropout: float = Field(0.3, ge=0, lt=1)
    """Share of what the CNN reads that is left out in training."""
    adversarial_weight: float = Field(0.01, ge=0)
    """lambda."""
    shrinkage: float = Field(25.0, gt=0)
    """s to begin with: ratings' worth of belief that somebody has the tastes of everybody."""
    fine_tuned: tuple[Layer, ...] = ("extractor", "predictor")
    """What is fine-tuned on the target, after the joint training."""
    fine_tuning: int = Field(3, ge=0)
    """Epochs of that at most; it is dropped where it helps no validation user."""


class UserEncoder(nn.Module):
    """z_u from a history in any domains: what an LSTM makes of its order, and a shrunken sum of opinions."""

    def __init__(self, config: AdversarialConfig, n_attributes: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.config = config
        self.sequence = SequenceEncoder(n_attributes, 2 * size + 3, config.hidden_size, size)
        self.log_shrinkage = nn.Parameter(torch.empty(1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the sum alone: the LSTM's last layer is zero."""
        self.sequence.reset_parameters()
        nn.init.constant_(self.log_shrinkage, self.config.shrinkage).log_()

    def forward(self, known: Known) -> Tensor:
        """(B, E)."""
        shrinkage, opinions = self.log_shrinkage.exp(), known.opinions.unsqueeze(-1)
        summed = shrinkage * known.pooled(opinions * known.rows, shrinkage)
        extra = torch.stack([known.opinions, known.in_target.to(known.rows), known.weights], dim=-1)
        inputs = torch.cat([known.rows, opinions * known.rows, extra], dim=-1)  # (B, L, 2 E + 3)
        kept = newest(known.weights > 0, self.config.max_history)
        read = inputs.gather(1, kept.unsqueeze(-1).expand(-1, -1, inputs.shape[2]))
        n = (known.weights > 0).sum(dim=1).clamp(max=self.config.max_history)
        return summed + after(self.sequence(known.evidence.attributes, read), n)


class ItemEncoder(nn.Module):
    """v_i from an item's row and the words of its title and texts."""

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.cnn = TextCnn(N_WORDS, WORD_SIZE, config.word_dropout)
        self.out = nn.Linear(self.cnn.width, config.embedding_size, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the rows alone."""
        nn.init.zeros_(self.out.weight)

    def forward(self, rows: Tensor, words: Tensor) -> Tensor:
        """(n, E) from rows (n, E) and words (n, LENGTH)."""
        placed: Tensor = rows + self.out(self.cnn(words))
        return placed


class Extractor(nn.Module):
    """G and H, which begin as the identity on what rows say of opinions."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.users, self.items = (nn.Linear(size, size, bias=False) for _ in range(2))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the product of opinions."""
        for layer in (self.users, self.items):
            size = layer.in_features
            half = opinion_size(size)
            layer.reset_parameters()
            layer.weight[-half:] = torch.eye(size)[-half:]


class Adversarial(GroundedTransfer):
    """An LSTM of people and a CNN of items under features that hide the domain."""

    name: ClassVar[str] = "adversarial"
    Config = AdversarialConfig
    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        self.users = UserEncoder(config, schema.user_attributes.width)
        self.items = ItemEncoder(config)
        self.extractor = Extractor(size)
        self.predictor = nn.Linear(size, 1, bias=False)
        self.discriminator = MLP([size, config.hidden_size, 1])

    @property
    def taste_size(self) -> int:
        return self.config.embedding_size

    @torch.no_grad()
    def begin(self) -> None:
        for part in (self.users, self.items, self.extractor):
            part.reset_parameters()
        half = opinion_size(self.config.embedding_size)
        nn.init.zeros_(self.predictor.weight)[:, -half:] = 1

    def encode(self, known: Known) -> Tensor:
        """w * G z_u, so that the sum over features is an inner product with H v_i."""
        tastes: Tensor = self.predictor.weight * self.extractor.users(self.users(known))
        return tastes

    def place(self, rows: Tensor, read: Tensor) -> Tensor:
        features: Tensor = self.extractor.items(self.items(rows, read))
        return features

    def read(self, content: ItemContent) -> Tensor:
        return hashed_words(content.texts, LENGTH).to(self.mean.device)

    def align(self, lesson: TransferLesson, tastes: Tensor, items: Tensor, done: float) -> Tensor:
        source, target = (self._terms(lesson, tastes, items, there) for there in (False, True))
        return self.config.adversarial_weight * domain_loss(self.discriminator, source, target, done)

    def _terms(self, lesson: TransferLesson, tastes: Tensor, items: Tensor, target: bool) -> Tensor:
        """(P, E) w * f_ui of what is asked in one domain; evenly over all people where it is too much."""
        user, place = (lesson.weights * (lesson.in_target == target)).nonzero(as_tuple=True)
        step = max(1, len(user) // DISCRIMINATED)
        return tastes[user[::step]] * items[lesson.query[user[::step], place[::step]]]

    def stages(self) -> list[Stage]:
        layers = {"users": self.users, "items": self.items, "extractor": self.extractor, "predictor": self.predictor}
        chosen = nn.ModuleList(layers[name] for name in self.config.fine_tuned)
        tuning = [Stage(0.0, self.config.fine_tuning, chosen)] if self.config.fine_tuned else []
        return [*super().stages(), *tuning]
