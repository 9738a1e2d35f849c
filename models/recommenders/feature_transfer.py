"""Feature transfer: what domains have in common, and what each has for itself, encoded apart.

    x = [u; v; u * K v]                        a user's embedding and an item's
    s(x) = relu(S x),  t_d(x) = relu(T_d x)    shared encoder, and one of each domain's own
    r_ui = base_ui + g([s(x); t_d(x)])
    L = alpha L_source + (1 - alpha) L_target + beta sum_d |S' T_d|^2 / (H M_d)^2

S and T_d in the penalty are the codes (M_d, H) of the ratings of a mini-batch, so that they are kept from saying the
same thing: the soft orthogonality of Bousmalis et al., "Domain Separation Networks" (NeurIPS 2016). Without the shared
encoder (`use_shared` = false) the networks of the domains have only the user and the predictor in common.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.schema import Schema
from models.layers import Correction, PairEncoder
from models.training.crossing import Crossing, CrossingSettings, Meeting, UserTower


class FeatureTransferConfig(CrossingSettings):
    """Settings of `FeatureTransfer`."""

    use_shared: bool = True
    """Whether there is a shared encoder; without it nothing is carried over but the user."""
    orthogonality: float = Field(0.1, ge=0)
    """beta, how much shared and own codes are kept apart."""


class FeatureTransfer(Crossing):
    """A shared encoder and two of the domains' own. A state is the base's and the user's embedding."""

    name: ClassVar[str] = "feature_transfer"
    Config = FeatureTransferConfig
    config: FeatureTransferConfig

    def __init__(self, config: FeatureTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        sizes = config.user_size, config.embedding_size, config.hidden_size
        self.tower = UserTower(config, schema)
        self.shared = PairEncoder(*sizes) if config.use_shared else None
        self.source, self.target = PairEncoder(*sizes), PairEncoder(*sizes)
        self.predictor = Correction([(2 if config.use_shared else 1) * config.hidden_size, config.hidden_size, 1])

    def embed_users(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        users: Tensor = self.tower(profiles, attributes)
        return users

    def predict(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        own = self._own(users, rows, in_target)
        codes = own if self.shared is None else torch.cat([self.shared(users, rows), own], dim=-1)
        answers: Tensor = self.predictor(codes).squeeze(-1)
        return answers

    def penalty(self, users: Tensor, meeting: Meeting) -> Tensor:
        if self.shared is None:
            return users.new_zeros(())
        shared, own = self.shared(users, meeting.rows), self._own(users, meeting.rows, meeting.in_target)
        total = users.new_zeros(())
        for there in (False, True):
            asked = (meeting.weights > 0) & (meeting.in_target == there)
            alike = shared[asked].T @ own[asked] / asked.sum().clamp(min=1)  # (H, H)
            total = total + alike.square().mean()
        return self.config.orthogonality * total

    def _own(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        """t_d(x) of the domain that each item is in."""
        codes: Tensor = self.target(users, rows).where(in_target[..., None], self.source(users, rows))
        return codes
