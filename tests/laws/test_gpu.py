"""On a CUDA device every recommender says what it says on the CPU."""

from copy import deepcopy

import pytest
import torch

from tests.laws.entries import ENTRIES
from tests.laws.test_laws import case_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_recommender_moved_to_the_device_scores_as_before(name: str) -> None:
    case = case_of(name, ENTRIES[name].worlds[0])
    evidence, moved = case.world.mixed_evidence(), deepcopy(case.recommender).to("cuda")
    table = case.table.to("cuda")
    with torch.no_grad():
        here = case.recommender.score(case.recommender.adapt(evidence, case.table, 0), case.table).mean
        there = moved.score(moved.adapt(evidence.to("cuda"), table, 0), table).mean
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
