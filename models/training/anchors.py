"""A map between the tastes of two catalogues that needs nobody who is in both: what content says anchors it.

    c_s w_0 + x' G_s w  ~  c_t w'_0 + x' G_t w'        for the items x of the target

where G_d is what an item's content x says of its factors in domain d, c_d what a user's bias is multiplied by. Somebody
who likes old films there is to like them here: w' = M w makes their expected opinions of the target's items the same,
as far as content tells them, with the standard normal prior of w' against it:

    M = argmin E_x |C_t M - C_s|^2 + reg |M|^2 = (C_t' S C_t + reg I)^-1 C_t' S C_s,    S = E[x x']

with C_d = [c_d, G_d] and S over the ratings of the target. A constant and an item's popularity are content too, so that
generosity is carried over where catalogues have no attribute in common.
"""

import torch
from torch import Tensor


def expected_opinions(content_weights: Tensor, loading: Tensor) -> Tensor:
    """C (F, P): the expected opinion of an item with features x (F,), the first of them 1, is x' C w.

    `content_weights` (F, P) are those of the items' bias, which is everybody's, and factors; `loading` () is c.
    """
    expected = torch.cat([torch.zeros_like(content_weights[:, :1]), content_weights[:, 1:]], dim=1)
    expected[0, 0] = loading
    return expected


def anchored_map(source: Tensor, target: Tensor, features: Tensor, counts: Tensor, reg: float) -> Tensor:
    """M (P', P) from C_s (F, P) and C_t (F, P'), over items with `features` (N, F) and `counts` (N,) of ratings.

    >>> c = torch.eye(2)
    >>> anchored_map(c, 2 * c, torch.eye(2), torch.ones(2), reg=0.0).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    x = features.double() * (counts.double() / counts.double().sum().clamp(min=1e-9)).sqrt()[:, None]
    there, here = x @ source.double(), x @ target.double()  # (N, P)
    precision = here.T @ here + reg * torch.eye(target.shape[1], dtype=torch.double, device=here.device)
    found: Tensor = torch.linalg.solve(precision, here.T @ there)
    return found.to(source)
