"""Base learners of MAML: what adapts to a task. Here the predictor and everything; its last layer in `heads`.

Each holds the meta-learnt weights and makes of them, in an inner loop over a batch of tasks, *fast weights*: a list of
tensors with the task as first axis, which `pack` lays flat as a state. Shapes: B tasks, L support interactions, N
items, D numbers of an item's input, R of its row, U of what is known of the task's user beforehand.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from models.layers import MLP
from models.training.inner_loop import Layer, Support, Weights, descend, mlp_forward, mlp_step

FastWeights = list[Tensor]


class Learner(nn.Module, ABC):
    """Weights that adapt to a task."""

    row_size: int
    """R, numbers of an item's row."""
    user_size: int
    """U, numbers of a user's representation before adaptation."""
    shapes: list[tuple[int, ...]]
    """Shapes of the fast weights of one task."""

    @abstractmethod
    def embed(self, inputs: Tensor) -> Tensor:
        """Rows (n, R) of items from inputs (n, D): the part of the network that no task changes."""

    @abstractmethod
    def adapt(self, support: Support, attributes: Tensor, shift: Tensor) -> list[FastWeights]:
        """Fast weights after each inner step, the adapted ones last; `support.inputs` are item rows (B, L, R).

        `attributes` (B, A) go through the user tower, `shift` (B, U) is added to what comes out.
        """

    @abstractmethod
    def predict(self, fast: FastWeights, rows: Tensor) -> Tensor:
        """Predictions (B, N) for item rows (N, R), or (B, N, R) where each task has its own."""

    def pack(self, fast: FastWeights) -> Tensor:
        """Fast weights as states (B, S)."""
        size = len(fast[-1])
        parts = zip(fast, self.shapes, strict=True)
        return torch.cat([part.expand(size, *shape).flatten(1) for part, shape in parts], dim=1)

    def unpack(self, states: Tensor) -> FastWeights:
        """The inverse of `pack`: views of the states."""
        parts = torch.split(states, [prod(shape) for shape in self.shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]


class Predictor(Learner):
    """The predictor network adapts by gradient steps; the towers give it a user's and an item's embedding.

    A user's own embedding enters the first layer only as a constant, so that half of the layer is folded into its bias:
    with c = b + W_u' u, a gradient step of rate a on W_u and b moves c by a (1 + |u|^2) times the step of a bias. The
    fast weights are those of the folded network, which is exactly the unfolded one.
    """

    def __init__(
        self,
        user_tower: MLP,
        item_tower: MLP,
        predictor: MLP,
        *,
        steps: int,
        rate: float,
        meta_sgd: bool,
        reg: float,
        first_order: bool,
    ) -> None:
        super().__init__()
        self.user_tower, self.item_tower, self.predictor = user_tower, item_tower, predictor
        self.row_size = item_tower.linears()[-1].out_features
        self.user_size = user_tower.linears()[-1].out_features
        self.steps, self.reg, self.first_order = steps, reg, first_order
        self.initial_rate = rate
        self.rates = nn.ParameterList(
            [nn.Parameter(torch.empty_like(p)) for p in predictor.parameters()] if meta_sgd else []
        )
        linears = predictor.linears()
        widths = [self.row_size, *(linear.out_features for linear in linears)]
        self.shapes = []
        for n_in, n_out in pairwise(widths):
            self.shapes += [(n_in, n_out), (n_out,)]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rates start at the configured one."""
        for rate in self.rates:
            nn.init.constant_(rate, self.initial_rate)

    def embed(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.item_tower(inputs)
        return out

    def adapt(self, support: Support, attributes: Tensor, shift: Tensor) -> list[FastWeights]:
        user = self.user_tower(attributes) + shift  # (B, U)
        layers: list[Layer] = [(lin.weight.mT, lin.bias.expand(len(user), -1)) for lin in self.predictor.linears()]
        weight, bias = layers[0]
        layers[0] = (weight[self.user_size :], bias + user @ weight[: self.user_size])
        rates = self._rates(user)
        trajectory = [_flat(layers)]
        for _ in range(self.steps):
            layers = mlp_step(layers, support, rates, self.reg, self.first_order)
            trajectory.append(_flat(layers))
        return trajectory

    def predict(self, fast: FastWeights, rows: Tensor) -> Tensor:
        return mlp_forward(_layers(fast), rows)[-1].squeeze(-1)

    def _rates(self, user: Tensor) -> list[tuple[Tensor | float, Tensor | float]]:
        """Rates of the folded network's layers."""
        square = user.square()
        if not self.rates:
            folded = self.initial_rate * (1 + square.sum(dim=1, keepdim=True))  # (B, 1)
            return [
                (self.initial_rate, folded),
                *[(self.initial_rate, self.initial_rate)] * (len(self.shapes) // 2 - 1),
            ]
        rates: list[tuple[Tensor | float, Tensor | float]] = []
        for weight, bias in zip(self.rates[::2], self.rates[1::2], strict=True):
            rates.append((weight.mT, bias))
        weight, bias = self.rates[0].mT, self.rates[1]
        rates[0] = (weight[self.user_size :], bias + square @ weight[: self.user_size])
        return rates


class Everything(Learner):
    """Towers and predictor all adapt by gradient steps: MAML as published, the gradients by `torch.func`."""

    def __init__(
        self,
        user_tower: MLP,
        item_tower: MLP,
        predictor: MLP,
        *,
        steps: int,
        rate: float,
        meta_sgd: bool,
        reg: float,
        first_order: bool,
    ) -> None:
        super().__init__()
        self.network = _Network(user_tower, item_tower, predictor)
        self.row_size = item_tower.linears()[0].in_features
        self.user_size = user_tower.linears()[-1].out_features
        self.steps, self.reg, self.first_order = steps, reg, first_order
        self.initial_rate = rate
        self.rates = nn.ParameterList(
            [nn.Parameter(torch.empty_like(p)) for p in self.network.parameters()] if meta_sgd else []
        )
        self.shapes = [(self.user_size,)]
        for linear in [*item_tower.linears(), *predictor.linears()]:
            self.shapes += [(linear.in_features, linear.out_features), (linear.out_features,)]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rates start at the configured one."""
        for rate in self.rates:
            nn.init.constant_(rate, self.initial_rate)

    def embed(self, inputs: Tensor) -> Tensor:
        return inputs

    def adapt(self, support: Support, attributes: Tensor, shift: Tensor) -> list[FastWeights]:
        def loss(weights: Weights, inputs: Tensor, y: Tensor, w: Tensor, known: Tensor, move: Tensor) -> Tensor:
            predicted = functional_call(self.network, weights, (inputs, known, move))
            error: Tensor = (w * (predicted - y).square()).sum() / (w.sum() + self.reg).clamp(min=1e-9)
            return error

        per_user = vmap(grad(loss))

        def gradient(weights: Weights) -> Weights:
            slopes: Weights = per_user(weights, support.inputs, support.targets, support.weights, attributes, shift)
            return slopes

        named = dict(self.network.named_parameters())
        start = {name: parameter.expand(len(shift), *parameter.shape) for name, parameter in named.items()}
        rates: Weights | float = dict(zip(named, self.rates, strict=True)) if self.rates else self.initial_rate
        trajectory = descend(start, gradient, rates, self.steps, self.first_order)
        return [self._fast(weights, attributes, shift) for weights in trajectory]

    def predict(self, fast: FastWeights, rows: Tensor) -> Tensor:
        user, layers = fast[0], _layers(fast[1:])
        n_tower = len(self.network.item_tower.linears())
        items = mlp_forward(layers[:n_tower], rows)[-1]  # (B, N, E)
        pairs = torch.cat([user.unsqueeze(1).expand(-1, items.shape[1], -1), items], dim=2)
        predicted: Tensor = mlp_forward(layers[n_tower:], pairs)[-1].squeeze(-1)
        return predicted

    def _fast(self, weights: Weights, attributes: Tensor, shift: Tensor) -> FastWeights:
        """The user tower has had its say once the user's embedding is there."""
        towers: dict[str, list[Layer]] = {}
        for name, weight in weights.items():
            tower, layer, parameter = name.split(".")
            if parameter == "weight":
                towers.setdefault(tower, []).append((weight.mT, weights[f"{tower}.{layer}.bias"]))
        user = mlp_forward(towers["user_tower"], attributes.unsqueeze(1))[-1].squeeze(1) + shift
        return [user, *_flat([*towers["item_tower"], *towers["predictor"]])]


class _Network(nn.Module):
    """One user's predictions for L items."""

    def __init__(self, user_tower: MLP, item_tower: MLP, predictor: MLP) -> None:
        super().__init__()
        self.user_tower, self.item_tower, self.predictor = user_tower, item_tower, predictor

    def forward(self, inputs: Tensor, attributes: Tensor, shift: Tensor) -> Tensor:
        items = self.item_tower(inputs)  # (L, E)
        user = (self.user_tower(attributes) + shift).expand(len(items), -1)  # (L, E)
        out: Tensor = self.predictor(torch.cat([user, items], dim=1)).squeeze(-1)
        return out


def _flat(layers: Sequence[Layer]) -> FastWeights:
    return [tensor for layer in layers for tensor in layer]


def _layers(fast: FastWeights) -> list[Layer]:
    return list(zip(fast[::2], fast[1::2], strict=True))
