"""Network blocks that several recommenders share."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with rectifiers between them: `MLP([64, 64, 32])` takes 64 numbers to 32 through 64 hidden ones."""

    def __init__(self, sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers[:-1])

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


def reset_parameters(module: nn.Module) -> None:
    """Draw all weights below `module` anew, from torch's current generator."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def with_constant(features: Tensor) -> Tensor:
    """A one before each row of features, (…, F) → (…, 1 + F); so a layer has something to read where F is 0."""
    return nn.functional.pad(features, (1, 0), value=1.0)
