"""Base learners whose last layer adapts: by gradient steps, or in closed form."""

import torch
from torch import Tensor, nn

from models.layers import MLP
from models.training.inner_loop import Support, descend_linear, ridge
from models.training.learners import FastWeights, Learner


class Head(Learner):
    """The last layer adapts: predictions are inner products of item rows with the user's head.

        f(u, i) = theta_u . [c, phi_i],    theta_u starts at theta_0 + tower(a_u) + shift

    An item's features do not depend on the user (that is what the head is for), so a table of items keeps them and a
    whole catalogue is scored by one matrix product. Raghu et al., "Rapid Learning or Feature Reuse?" (ICLR 2020).
    """

    def __init__(
        self,
        user_tower: MLP,
        item_tower: MLP,
        *,
        steps: int,
        rate: float,
        meta_sgd: bool,
        reg: float,
        first_order: bool,
    ) -> None:
        super().__init__()
        self.user_tower, self.item_tower = user_tower, item_tower
        self.row_size = self.user_size = item_tower.linears()[-1].out_features + 1
        self.shapes = [(self.row_size,)]
        self.constant = nn.Parameter(torch.empty(1))
        self.steps, self.reg, self.first_order = steps, reg, first_order
        self.initial_rate = rate
        self.rate = nn.Parameter(torch.empty(self.row_size)) if meta_sgd else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The constant feature weighs half a point; rates start at the configured one."""
        nn.init.constant_(self.constant, 0.5)
        if self.rate is not None:
            nn.init.constant_(self.rate, self.initial_rate)

    def embed(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.constant.expand(len(inputs), 1), self.item_tower(inputs)], dim=1)

    def adapt(self, support: Support, attributes: Tensor, shift: Tensor) -> list[FastWeights]:
        start = self.user_tower(attributes) + shift
        rates: Tensor | float = self.initial_rate if self.rate is None else self.rate
        return [[step] for step in descend_linear(start, support, rates, self.steps, self.reg, self.first_order)]

    def predict(self, fast: FastWeights, rows: Tensor) -> Tensor:
        return fast[0] @ rows.mT if rows.dim() == 2 else (rows @ fast[0].unsqueeze(-1)).squeeze(-1)


class RidgeHead(Head):
    """The head that minimises the inner loss, in closed form, with its posterior covariance.

    Bertinetto et al., "Meta-learning with differentiable closed-form solvers" (ICLR 2019). The prior covariance is the
    identity and the noise one: the scale of the item features, which is meta-learnt, says how far a head may go.
    """

    def __init__(self, user_tower: MLP, item_tower: MLP, *, uncertainty: bool) -> None:
        super().__init__(user_tower, item_tower, steps=1, rate=0.0, meta_sgd=False, reg=0.0, first_order=False)
        self.uncertainty = uncertainty
        if uncertainty:
            self.shapes = [(self.row_size,), (self.row_size, self.row_size)]

    def adapt(self, support: Support, attributes: Tensor, shift: Tensor) -> list[FastWeights]:
        mean, covariance = ridge(support, self.user_tower(attributes) + shift, self.uncertainty)
        return [[mean] if covariance is None else [mean, covariance]]

    def variance(self, covariance: Tensor, rows: Tensor) -> Tensor:
        """Posterior variance (B, N) of the predictions for item rows (N, R), in units of the noise."""
        variance: Tensor = torch.bmm(rows.expand(len(covariance), -1, -1), covariance).mul_(rows).sum(dim=-1)
        return variance.clamp_(min=0)
