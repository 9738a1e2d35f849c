"""The figures of recommenders on one page, `docs/figures.md`: of each one row, from the reports that are kept."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from models.evaluation.results import Report, Timing, Timings
from models.registry import RECOMMENDERS

RATINGS, LISTS = "movielens-1m-kshot", "movielens-1m-foldin-98765"
"""Reports that the figures are from."""
AMOUNTS = ("k=0", "k=5", "k=20")
NDCG = "ndcg@100"

INTRODUCTION = """\
# Figures of the recommenders

Written by `make results` from the reports in `docs/results`; [results](RESULTS.md) has the commands that made those,
all other figures, and their intervals. RMSE is of cold users of MovieLens-1M of whom `k` ratings are known, NDCG@100 of
the lists of unseen users there. Times are of {device} with {threads} thread: a fit on that data, and the scores of the
whole catalogue for one user. Who has no row has no such figures yet. [Recommenders](recommenders.md) says what each is,
and when it is worth it.

| recommender | role | RMSE, k = 0 | k = 5 | k = 20 | NDCG@100 | fit | scores |
|---|---|--:|--:|--:|--:|--:|--:|
"""


def figures_page(folder: Path) -> str:
    """The page, made of the reports in `folder`. Raises OSError where they are not there."""
    ratings, times = _read(folder, RATINGS)
    lists, list_times = _read(folder, LISTS)
    rows = list(_rows(ratings, lists, {**list_times.rows, **times.rows}))
    return INTRODUCTION.format(device=f"a {times.device}", threads=times.threads) + "\n".join(rows) + "\n"


def _read(folder: Path, name: str) -> tuple[Report, Timings]:
    report = Report.model_validate_json((folder / f"{name}.json").read_bytes())
    return report, Timings.model_validate_json((folder / f"{name}.timings.json").read_bytes())


def _rows(ratings: Report, lists: Report, times: Mapping[str, Timing]) -> Iterator[str]:
    """A line for each recommender that either report has, in the order of the registry."""
    judged = {row.name: row for row in ratings.rows}
    listed = {row.name: row for row in lists.rows}
    for name, kind in RECOMMENDERS.items():
        if name in judged or name in listed:
            errors = [f"{judged[name].cells[k].figures['rmse']:.3f}" if name in judged else "" for k in AMOUNTS]
            (group,) = lists.groups
            gain = f"{listed[name].cells[group].figures[NDCG]:.3f}" if name in listed else ""
            time = times.get(name, Timing())
            fit = "" if time.training_seconds is None else f"{_short(time.training_seconds)} s"
            scores = "" if time.scoring_microseconds is None else f"{_short(time.scoring_microseconds)} µs"
            yield f"| `{name}` | {kind.role} | {' | '.join([*errors, gain, fit, scores])} |"


def _short(number: float) -> str:
    """A number with two or three digits that count.

    >>> [_short(number) for number in (0.0202, 6.23, 245.2)]
    ['0.02', '6.2', '245']
    """
    return f"{number:.{2 if number < 1 else 1 if number < 10 else 0}f}"
