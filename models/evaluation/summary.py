"""What reports come to, in a few lines each: the best row beside the simple ones, and the tables that say most."""

from collections.abc import Iterator, Mapping

from models.evaluation.results import REQUIRED, Report, Row
from models.evaluation.tables import NAMES, Table, best_row, interval_text, is_of_fewer_draws

SHOWN = {"rating": ("rmse",), "next_item": ("hit@10",), "ranking": ("ndcg@100",), "transfer": ("rmse", "list ndcg@10")}
"""Figures by which a report is summed up, most telling first."""
AMOUNTS = ("k=0", "k=5", "k=20")
"""Groups that stand for a curve over k."""
MOST_GROUPS = 3


def summary(reports: Mapping[str, Report]) -> Table:
    """A table of all reports, by the names of their chapters."""
    rows = [[f"[{name}](#{name})", *line] for name, report in reports.items() for line in _lines(report)]
    caption = (
        "The best row of a report, the best of the simple rows that it has to beat, and their difference on the same "
        "users. Rows that sat fewer draws than others are left to the reports."
    )
    return Table("In short", caption, ["report", "asked", "figure", "best", "best simple row", "difference"], rows)


def few_groups(report: Report) -> list[str]:
    """Groups of questions that stand for all: some amounts of evidence, or those whose labels have fewest parts."""
    groups = list(report.groups)
    if len(groups) <= MOST_GROUPS:
        return groups
    fewest = min(group.count(",") for group in groups)
    return [g for g in groups if g in AMOUNTS] or [g for g in groups if g.count(",") == fewest]


def _lines(report: Report) -> Iterator[list[str]]:
    for figure in SHOWN[report.measure]:
        for group in few_groups(report):
            rows = [row for row in report.rows if _has(report, row, group, figure)]
            if not rows:
                continue
            best = best_row(rows, group, figure)
            simple = best_row([row for row in rows if _is_simple(report, row)], group, figure)
            told = (_told(best, group, figure), _told(simple, group, figure), _less(best, simple, group, figure))
            yield [group, NAMES.get(figure, figure), *told]


def _has(report: Report, row: Row, group: str, figure: str) -> bool:
    return not is_of_fewer_draws(report, row) and group in row.cells and figure in row.cells[group].figures


def _is_simple(report: Report, row: Row) -> bool:
    """Whether a row is there to be beaten; `bayes` is, but is no simple one."""
    return row.name != "bayes" and row.name in (*REQUIRED, *report.baselines)


def _told(row: Row, group: str, figure: str) -> str:
    return f"`{row.name}` {row.cells[group].figures[figure]:.4f}"


def _less(best: Row, baseline: Row, group: str, figure: str) -> str:
    """Their difference, with its interval where the report has that."""
    if best.name == baseline.name:
        return ""
    interval = best.cells[group].against.get(baseline.name, {}).get(figure)
    if interval is None:
        return f"{best.cells[group].figures[figure] - baseline.cells[group].figures[figure]:+.4f}"
    return interval_text(interval)


def main_tables(report: Report, tables: list[Table]) -> list[Table]:
    """Those of a report that say most: the figures that it is summed up by, and the differences that tell most."""
    titles = set()
    for figure in SHOWN[report.measure]:
        name, knows_least = NAMES.get(figure, figure), report.measure == "transfer" and figure == "rmse"
        titles |= {name, f"{name}, difference to {report.baselines[-2 if knows_least else -1]}"}
    return [table for table in tables if table.title in titles]
