"""Relation transfer: how somebody relates to an item is encoded, and carried from one domain to the other.

    rho = e([u; v])                  the relation of a user to an item
    r_ui = base_ui + g(rho)          in the source
    r_ui = base_ui + g(tau(rho))     in the target,  tau(rho) = rho + MLP(rho)

e and g are one for both domains, so what a relation means for a rating is learnt from the source too, and tau says what
it becomes in the target; it begins as the identity. A relation as a vector between two others is that of Tay, Luu and
Hui, "Latent Relational Metric Learning via Memory-based Attention" (WWW 2018). Without the transfer (`is_transfer` =
false) the network learns from the target alone, of the target alone: r_ui = base_ui + g(rho), alpha = 0.
"""

from typing import ClassVar

from torch import Tensor

from models.datasets.schema import Schema
from models.layers import Correction, PairEncoder
from models.training.crossing import Crossing, CrossingSettings, UserTower


class RelationTransferConfig(CrossingSettings):
    """Settings of `RelationTransfer`."""

    is_transfer: bool = True
    """Whether relations are carried over; otherwise the network sees and learns nothing of the source."""


class RelationTransfer(Crossing):
    """Relations and what carries them over. A state is the base's and the user's embedding."""

    name: ClassVar[str] = "relation_transfer"
    Config = RelationTransferConfig
    config: RelationTransferConfig

    def __init__(self, config: RelationTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.hidden_size
        self.tower = UserTower(config, schema)
        self.relation = PairEncoder(config.user_size, config.embedding_size, size)  # e
        self.carried = Correction([size, size, size]) if config.is_transfer else None  # tau, less the identity
        self.predictor = Correction([size, size, 1])  # g

    @property
    def alpha(self) -> float:
        return self.config.alpha if self.config.is_transfer else 0.0

    def embed_users(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        if not self.config.is_transfer:
            profiles = profiles * profiles.new_tensor([0.0, 1.0])[:, None]  # of the target alone
        users: Tensor = self.tower(profiles, attributes)
        return users

    def predict(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        relation = self.relation(users, rows)  # (B, Q, H)
        if self.carried is not None:
            relation = relation + in_target[..., None] * self.carried(relation)
        answers: Tensor = self.predictor(relation).squeeze(-1)
        return answers
