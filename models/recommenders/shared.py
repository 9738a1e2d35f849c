"""Shared-embedding network: embeddings per domain, one projection for both, one predictor for all ratings.

    z_us, z_ut = E_s x_us, E_t x_ut           embeddings of a user, one of what they did in each domain
    v_i                                       of an item, in its domain
    p_u = P (z_us + z_ut + C a_u),  p_i = P' v_i                                   the shared projections
    r_ui = base_ui + g([p_u; p_i; p_u * p_i])                                      the joint predictor

Collaboration through what two domains have in common, as in Hu et al., "CoNet: Collaborative Cross Networks for
Cross-Domain Recommendation" (CIKM 2018), where users share an embedding too; here it is made of the profiles of
`models.training.crossing`, so that newcomers have one. Projections and predictor that serve both domains are what is
carried over.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.datasets.schema import Schema
from models.layers import Correction, PairEncoder
from models.training.crossing import Crossing, CrossingSettings, UserTower


class SharedConfig(CrossingSettings):
    """Settings of `Shared`."""


class Shared(Crossing):
    """Embeddings per domain in one space. A state is the base's and z_u."""

    name: ClassVar[str] = "shared"
    Config = SharedConfig
    config: SharedConfig

    def __init__(self, config: SharedConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.embeddings = UserTower(config, schema)
        self.user_projection = nn.Linear(config.user_size, config.user_size, bias=False)
        self.item_projection = nn.Linear(config.embedding_size, config.user_size, bias=False)
        self.joint = PairEncoder(config.user_size, config.user_size, config.hidden_size)
        self.predictor = Correction([config.hidden_size, config.hidden_size, 1])

    def embed_users(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        projected: Tensor = self.user_projection(self.embeddings(profiles, attributes))
        return projected

    def predict(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        answers: Tensor = self.predictor(self.joint(users, self.item_projection(rows))).squeeze(-1)
        return answers
