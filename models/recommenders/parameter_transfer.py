"""Parameter transfer: what the source has taught is where the target begins.

    theta_s = argmin L_source(theta)                          e, P and g below, and the rows of the source's items
    theta_t = argmin L_target(theta)  from theta_s,           with chosen layers held as they are

    u = e(x_us + x_ut),   r_ui = base_ui + g(P [u; v])        one network, in the source first and then in the target

Pan and Yang, "A Survey on Transfer Learning" (TKDE 2010), 3.3; Yosinski et al., "How transferable are features in deep
neural networks?" (NeurIPS 2014), on what to freeze. Embeddings that overlap are carried over too: those of items that
are one thing in two catalogues (`same_as`), while users bring theirs, for e makes it of what they did in the source.
The profiles of a user are added up, so that the encoder reads the one domain as it learnt to read the other.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import Correction, PairEncoder, with_constant
from models.recommender import FitOptions, Fitted
from models.training.crossing import Course, Crossing, CrossingSettings
from models.training.domains import domain_of, overlapping_items, users_in
from models.training.profiles import profile_size

Layer = Literal["users", "pairs", "predictor"]


class ParameterTransferConfig(CrossingSettings):
    """Settings of `ParameterTransfer`; `epochs` are those of each domain, and `alpha` takes no part."""

    use_source: bool = True
    """Whether the target begins with what the source has taught; otherwise at random."""
    frozen: list[Layer] = ["users"]
    """Layers that stay as the source has taught them: `users` is e, `pairs` P, `predictor` g."""
    carry_items: bool = True
    """Whether target items begin with the embedding of what is the same thing in the source."""
    fine_tune_rate: float = Field(1.0, gt=0)
    """Learning rate in the target, as a share of `learning_rate`, which is that in the source."""
    target_share: float = Field(1.0, gt=0, le=1)
    """Share of the target's users, drawn at random, that the network is fine-tuned on."""


class ParameterTransfer(Crossing):
    """A network taught by the source, fine-tuned on the target. A state is the base's and u."""

    name: ClassVar[str] = "parameter_transfer"
    Config = ParameterTransferConfig
    config: ParameterTransferConfig

    def __init__(self, config: ParameterTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = profile_size(config.embedding_size) + 1 + schema.user_attributes.width
        self.layers = nn.ModuleDict(
            {
                "users": nn.Linear(size, config.user_size, bias=False),
                "pairs": PairEncoder(config.user_size, config.embedding_size, config.hidden_size),
                "predictor": Correction([config.hidden_size, config.hidden_size, 1]),
            }
        )

    def embed_users(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        users: Tensor = self.layers["users"](torch.cat([profiles.sum(1), with_constant(attributes)], dim=1))
        return users

    def predict(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        answers: Tensor = self.layers["predictor"](self.layers["pairs"](users, rows)).squeeze(-1)
        return answers

    def take(self, course: Course, data: Dataset, options: FitOptions) -> Fitted:
        config, target = self.config, self.direction.target
        if config.use_source:
            unasked = replace(options, validation=None)  # validation asks about the target
            course.run(unasked, 1.0, chosen=lambda part: part.where(domain_of(part) != target))
            for name in config.frozen:
                self.layers[name].requires_grad_(False)
            if config.carry_items:
                source, twin = overlapping_items(data, self.direction).to(options.device).unbind(1)
                with torch.no_grad():
                    course.practice.embedding[twin] = course.practice.embedding[source]
        users = users_in(data, target).nonzero().flatten()
        shuffled = users[torch.randperm(len(users), generator=torch.Generator().manual_seed(options.seed))]
        left_out = shuffled[max(1, round(config.target_share * len(users))) :]
        rate = config.learning_rate * (config.fine_tune_rate if config.use_source else 1.0)
        return course.run(
            options,
            0.0,
            learning_rate=rate,
            chosen=lambda part: part.where(~torch.isin(part.interactions.users, left_out)),
        )
