"""The tables of a report: the same for Markdown and HTML."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from models.evaluation.metrics import COVERAGE_LEVELS
from models.evaluation.results import Cell, Report, Row, Timings
from models.evaluation.significance import Interval

HEADLINES = {
    "rating": ("rmse", "mae", "ndcg@5"),
    "next_item": ("hit@10", "ndcg@10", "mrr"),
    "ranking": ("ndcg@100", "recall@20", "recall@50", "ndcg@10"),
    "transfer": ("rmse", "mae", "ndcg@10", "list ndcg@10", "list recall@10"),
}
COMPARED = {
    "rating": ("rmse",),
    "next_item": ("hit@10", "ndcg@10"),
    "ranking": ("ndcg@100",),
    "transfer": ("rmse", "ndcg@10", "list ndcg@10"),
}
"""Figures whose differences to the baselines are shown."""
COLD_START: dict[str, tuple[str, ...]] = {
    "next_item": (),
    "rating": ("first success", "precision@5", "recall@5", "hit@5", "ndcg@5 (binary)"),
    "ranking": ("hit@10", "precision@10"),
    "transfer": ("first success", "list hit@10"),
}
NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "nll": "negative log-likelihood",
    "mrr": "MRR",
    "first success": "first-recommendation success",
}
LOWER_IS_BETTER = {"rmse", "mae", "mse", "nll"}


@dataclass(frozen=True)
class Table:
    """A titled grid of text; a cell in `strong` stands out."""

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    strong: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of cells to stand out."""


def tables(report: Report) -> list[Table]:
    """Everything a report shows, but for times."""
    measure = report.measure
    shown = [_headline(report, figure) for figure in HEADLINES[measure]]
    shown += [_differences(report, figure, b) for figure in COMPARED[measure] for b in report.baselines]
    shown += [_cold_start(report, figure) for figure in COLD_START[measure]]
    if measure in {"rating", "transfer"}:
        shown += [_calibration(report), *(_by_group(report, f, c) for f, c in _CALIBRATION_BY_GROUP)]
    return [*[table for table in shown if table.rows], _questions(report), _settings(report)]


def times_table(timings: Timings) -> Table:
    """What each row cost on the machine at hand."""
    rows = [
        [name, _number(t.training_seconds, ".1f"), _number(t.scoring_microseconds, ".1f")]
        for name, t in timings.rows.items()
    ]
    caption = (
        f"Fit in seconds; µs to adapt to a user and score the catalogue. {timings.device}, {timings.threads} thread. "
        "Other work on the machine makes them longer: compare the rows of one table, not tables."
    )
    return Table("Times", caption, ["", "training, s", "scoring, µs a user"], rows)


def _headline(report: Report, figure: str) -> Table:
    best = "lowest" if figure in LOWER_IS_BETTER else "highest"
    return _by_group(report, figure, f"The {best} of each column stands out.", strongest=True)


_CALIBRATION_BY_GROUP = (
    ("coverage@90%", "Share of held-out ratings within the 90 % interval."),
    ("nll", "Mean, in nats, of held-out ratings under the predicted normal."),
)


def _by_group(report: Report, figure: str, caption: str, *, strongest: bool = False) -> Table:
    """One figure, a column for each group of questions; rows without it are left out."""
    rows = [row for row in report.rows if all(figure in cell.figures for cell in row.cells.values())]
    strong = set()
    complete = [row for row in rows if not is_of_fewer_draws(report, row) and row.cells.keys() >= report.groups.keys()]
    if strongest and complete:
        for column, group in enumerate(report.groups, start=1):
            strong.add((rows.index(best_row(complete, group, figure)), column))
    grid = [[_name(report, row), *(_value(row.cells.get(group), figure) for group in report.groups)] for row in rows]
    return Table(NAMES.get(figure, figure), caption, ["", *report.groups], grid, frozenset(strong))


def _differences(report: Report, figure: str, baseline: str) -> Table:
    grid: list[list[str]] = []
    strong = set()
    for row in report.rows:
        if any(figure not in cell.against.get(baseline, {}) for cell in row.cells.values()):
            continue
        texts = []
        for column, group in enumerate(report.groups, start=1):
            if group not in row.cells:
                texts.append("")
                continue
            interval = row.cells[group].against[baseline][figure]
            better = interval.high < 0 if figure in LOWER_IS_BETTER else interval.low > 0
            if better:
                strong.add((len(grid), column))
            texts.append(interval_text(interval))
        grid.append([_name(report, row), *texts])
    caption = (
        "Row minus baseline on the same users, 95 % interval of a paired bootstrap over users; better ones stand out."
    )
    title = f"{NAMES.get(figure, figure)}, difference to {baseline}"
    return Table(title, caption, ["", *report.groups], grid, frozenset(strong))


def _cold_start(report: Report, figure: str) -> Table:
    captions = {
        "first success": "Share of users who rated the first item of their list 4 or more.",
        "precision@5": "Share of the first five places with an item rated 4 or more, mean over users.",
        "recall@5": "Share of the items rated 4 or more that are in the first five, mean over users who have any.",
        "hit@5": "Share of users with an item rated 4 or more in the first five places.",
    }
    return _by_group(report, figure, captions.get(figure, "Mean over users."))


def _calibration(report: Report) -> Table:
    header = ["", *(f"{level:.0%}" for level in COVERAGE_LEVELS)]
    rows = []
    for row in report.rows:
        counts = [report.groups[group][1] for group in row.cells]
        shares = []
        for level in COVERAGE_LEVELS:
            values = [cell.figures.get(f"coverage@{level:.0%}") for cell in row.cells.values()]
            known = [(v, n) for v, n in zip(values, counts, strict=True) if v is not None]
            shares.append(f"{sum(v * n for v, n in known) / sum(n for _, n in known):.3f}" if known else "")
        if all(shares):
            rows.append([row.name, *shares])
    caption = "Share of held-out ratings within each central interval of the predicted normal, over all questions."
    return Table("Calibration of the standard deviation", caption, header, rows)


def _questions(report: Report) -> Table:
    rows = [[group, str(users), str(questions)] for group, (users, questions) in report.groups.items()]
    return Table("Questions", "Cold users and what they were asked.", ["", "users", "questions"], rows)


def _settings(report: Report) -> Table:
    rows = []
    for row in report.rows:
        settings = json.dumps(row.settings, sort_keys=True) if row.settings else "defaults" if row.recommender else ""
        rows.append([row.name, settings, _list(row.seeds), _list(row.epochs), row.chosen])
    caption = "How each row was trained; settings and epochs were chosen on validation users only."
    return Table("Settings", caption, ["", "settings", "seeds", "epochs", "how chosen"], rows)


def best_row(rows: list[Row], group: str, figure: str) -> Row:
    """The row whose figure is best in a group of questions; the first of equals."""
    sign = 1 if figure in LOWER_IS_BETTER else -1
    return min(rows, key=lambda row: sign * row.cells[group].figures[figure])


def interval_text(interval: Interval) -> str:
    """A difference with its interval."""
    return f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def is_of_fewer_draws(report: Report, row: Row) -> bool:
    """Whether a row of a cross-domain table sat fewer draws than others: its figures are no mean beside theirs."""
    return report.measure == "transfer" and len(row.seeds) < len(report.row("bayes").seeds)


def _name(report: Report, row: Row) -> str:
    return f"{row.name} (1 draw)" if is_of_fewer_draws(report, row) else row.name


def _value(cell: Cell | None, figure: str) -> str:
    if cell is None:
        return ""
    value = f"{cell.figures[figure]:.4f}"
    return f"{value} ± {cell.spread[figure]:.4f}" if figure in cell.spread else value


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(n) for n in numbers)
