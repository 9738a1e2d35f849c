"""The newest interactions of each user: what a state of fixed size can hold of a history that is longer."""

import torch
from torch import Tensor


def newest(mask: Tensor, n: int) -> Tensor:
    """(B, min(n, L)) positions of the last n True entries of each row of a mask (B, L), first to last.

    Where a row has fewer, False entries follow.

    >>> newest(torch.tensor([[True, False, True, True], [False, True, False, False]]), 2).tolist()
    [[2, 3], [1, 0]]
    """
    place = mask.cumsum(dim=1)
    kept = mask & (place > place[:, -1:] - n)
    return torch.argsort((~kept).long(), dim=1, stable=True)[:, :n]
