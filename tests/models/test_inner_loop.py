"""Inner loops do by hand what autograd would do, and what algebra says."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.func import grad

from models.training.inner_loop import Layer, Support, descend, error_slope, mlp_forward, mlp_step, ridge

B, L, E, H = 3, 7, 4, 5


@pytest.fixture(name="support")
def _support() -> Support:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(B, L, generator=generator, dtype=torch.float64)
    weights[1, 3:] = 0  # a user with a shorter support
    weights[2] = 0  # and one with none
    return Support(
        torch.randn(B, L, E, generator=generator, dtype=torch.float64),
        torch.randn(B, L, generator=generator, dtype=torch.float64),
        weights,
    )


def _network(seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [E, H, H, 1]
    return [
        (
            torch.randn(a, b, generator=generator, dtype=torch.float64),
            torch.randn(B, b, generator=generator, dtype=torch.float64),
        )
        for a, b in pairwise(sizes)
    ]


def _loss_of_user(parameters: list[Tensor], x: Tensor, y: Tensor, w: Tensor, reg: float) -> Tensor:
    """The inner loss, written the plain way for one user."""
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1]
        if i < len(parameters) - 2:
            x = x.relu()
    return (w * (x.squeeze(-1) - y).square()).sum() / (w.sum() + reg)


def _plain_steps(layers: list[Layer], support: Support, rate: float, reg: float, steps: int) -> list[list[Tensor]]:
    """Adapted parameters of each user by `torch.func`, one user at a time."""
    adapted = []
    for u in range(B):
        parameters = [t for weight, bias in layers for t in (weight, bias[u])]
        for _ in range(steps):
            slopes = grad(_loss_of_user)(parameters, support.inputs[u], support.targets[u], support.weights[u], reg)
            parameters = [p - rate * slope for p, slope in zip(parameters, slopes, strict=True)]
        adapted.append(parameters)
    return adapted


@pytest.mark.parametrize("rates", [[(0.1, 0.1)] * 3, [(torch.tensor(0.1), torch.tensor(0.1))] * 3])
def test_steps_by_hand_are_those_of_autograd(support, rates):
    layers = _network()
    expected = _plain_steps(layers, support, 0.1, 0.5, steps=3)
    for _ in range(3):
        layers = mlp_step(layers, support, rates, reg=0.5)
    for u in range(B):
        for (weight, bias), i in zip(layers, range(0, 6, 2), strict=True):
            torch.testing.assert_close(weight.expand(B, -1, -1)[u], expected[u][i])
            torch.testing.assert_close(bias[u], expected[u][i + 1])


def test_the_outer_gradient_goes_through_the_inner_steps(support):
    """Second order: the gradient of a query loss with regard to where the inner loop starts."""
    query = torch.randn(4, E, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    start = _network()[0][0].requires_grad_()
    layers = [(start, _network()[0][1]), *_network()[1:]]
    stepped = layers
    for _ in range(2):
        stepped = mlp_step(stepped, support, [(0.1, 0.1)] * 3, reg=0.5)
    by_hand = torch.autograd.grad(mlp_forward(stepped, query)[-1].square().sum(), start)[0]
    plain = torch.zeros(())
    for parameters in _plain_steps(layers, support, 0.1, 0.5, steps=2):
        shaped = [(w, b.unsqueeze(0)) for w, b in zip(parameters[::2], parameters[1::2], strict=True)]
        plain = plain + mlp_forward(shaped, query)[-1].square().sum()
    torch.testing.assert_close(by_hand, torch.autograd.grad(plain, start)[0])


def test_first_order_takes_inner_gradients_for_constants(support):
    """The adapted weights are the same; their derivative with regard to the start is the identity."""
    start = _network()[0][0].requires_grad_()
    layers = [(start, _network()[0][1]), *_network()[1:]]
    weight = mlp_step(layers, support, [(0.1, 0.1)] * 3, reg=0.5, first_order=True)[0][0]
    torch.testing.assert_close(weight, mlp_step(layers, support, [(0.1, 0.1)] * 3, reg=0.5)[0][0])
    slope = torch.autograd.grad(weight.sum(), start)[0]
    torch.testing.assert_close(slope, torch.full_like(start, B))


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_no_support_moves_nothing(support, reg):
    layers = mlp_step(_network(), support, [(0.1, 0.1)] * 3, reg)
    torch.testing.assert_close(layers[0][0][2], _network()[0][0])


def test_steps_do_not_touch_what_they_start_from(support):
    layers = _network()
    mlp_step(layers, support, [(0.1, 0.1)] * 3, reg=0.5)
    for (weight, bias), (before, bias_before) in zip(layers, _network(), strict=True):
        assert torch.equal(weight, before)
        assert torch.equal(bias, bias_before)


def test_one_rating_by_hand():
    """x = 2, y = 3, weight 1/4, prior 1: mean 1 + 2 · (1/4) · (3 − 2) / (1 + 4/4) = 1.25, variance 1 / (1 + 1)."""
    support = Support(torch.tensor([[[2.0]]]), torch.tensor([[3.0]]), torch.tensor([[0.25]]))
    mean, covariance = ridge(support, torch.tensor([[1.0]]), covariance=True)
    assert mean.tolist() == [[1.25]]
    assert covariance is not None
    torch.testing.assert_close(covariance, torch.tensor([[[0.5]]]))


def test_ridge_is_the_same_from_either_side(support):
    """Solved for the weights or for the interactions; padding decides which, and changes nothing."""
    prior = torch.randn(B, E, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    few = Support(support.inputs[:, :3], support.targets[:, :3], support.weights[:, :3])
    padding = torch.zeros(B, 4, dtype=torch.float64)
    padded = Support(
        torch.cat([few.inputs, support.inputs[:, 3:]], dim=1),
        torch.cat([few.targets, padding], dim=1),
        torch.cat([few.weights, padding], dim=1),
    )
    for one, other in zip(ridge(few, prior, True), ridge(padded, prior, True), strict=True):
        torch.testing.assert_close(one, other)


def test_ridge_is_the_posterior(support):
    prior = torch.randn(B, E, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean, covariance = ridge(support, prior, covariance=True)
    x, w = support.inputs, torch.diag_embed(support.weights)
    precision = torch.eye(E, dtype=torch.float64) + x.mT @ w @ x
    shift = prior.unsqueeze(-1) + x.mT @ w @ support.targets.unsqueeze(-1)
    torch.testing.assert_close(mean, torch.linalg.solve(precision, shift).squeeze(-1))
    torch.testing.assert_close(covariance, torch.linalg.inv(precision))


def test_descent_ends_at_least_squares(support):
    """Many small steps on a linear head reach the weighted least squares solution of the support."""

    def gradient(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        predicted = (support.inputs @ weights["head"].unsqueeze(-1)).squeeze(-1)
        return {"head": (error_slope(predicted, support, 0.0).unsqueeze(1) @ support.inputs).squeeze(1)}

    trajectory = descend({"head": torch.zeros(B, E, dtype=torch.float64)}, gradient, 0.2, steps=5000)
    root = support.weights[0].sqrt()
    solution = torch.linalg.lstsq(support.inputs[0] * root[:, None], (support.targets[0] * root)[:, None]).solution
    assert len(trajectory) == 5001
    torch.testing.assert_close(trajectory[-1]["head"][0], solution[:, 0], rtol=1e-5, atol=1e-5)
