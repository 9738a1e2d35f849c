"""A bad data set gets its documented error: the short form of `python -m tests.chaos.readers`."""

from tests.chaos.readers import run


def test_harmed_folders_are_read_whole_or_refused_with_their_place() -> None:
    outcome = run(cases=250, seed=11)
    assert outcome.problems == []
    assert outcome.read + outcome.refused.total() == outcome.cases
    assert outcome.read > 0 < outcome.with_line
