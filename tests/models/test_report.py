"""Reports: complete or not written, the same bytes for the same evaluation, self-contained."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.evaluation.cards import figures_page
from models.evaluation.report import results_page, whole_reports, write
from models.evaluation.results import REQUIRED, Cell, Report, Row, Timing, Timings
from models.evaluation.run import Plan, evaluate
from models.evaluation.significance import Interval
from models.evaluation.summary import few_groups
from models.evaluation.tables import tables
from models.registry import RECOMMENDERS
from tests.models.cinema import read_cinema

BETTER = {"bias": {"rmse": Interval(difference=-0.02, low=-0.03, high=-0.01)}}
ROWS = [
    Row(
        name=name,
        recommender=name,
        cells={
            "k=0": Cell(
                figures={"rmse": 1.0 + n / 10, "mae": 0.8, "ndcg@5": 0.7, "coverage@90%": 0.9},
                against=BETTER if name == "bayes" else {},
            )
        },
    )
    for n, name in enumerate(reversed(REQUIRED))
]
TIMINGS = Timings(device="CPU", threads=1, rows={"bayes": Timing(training_seconds=1.5, scoring_microseconds=20.0)})


def report(rows: list[Row] = ROWS) -> Report:
    return Report(
        protocol="kshot",
        description="Described.",
        measure="rating",
        dataset="cinema <&>",
        dataset_fingerprint="f" * 64,
        command="warmstart evaluate",
        groups={"k=0": (3, 4)},
        rows=rows,
    )


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_report_without_a_required_row_cannot_be_made(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        report([row for row in ROWS if row.name != missing])


def test_a_row_must_answer_every_group_and_have_a_name_of_its_own() -> None:
    with pytest.raises(ValidationError, match="every group"):
        report([*ROWS, Row(name="new", recommender="new", cells={})])
    with pytest.raises(ValidationError, match="same name"):
        report([*ROWS, ROWS[0]])


def test_the_best_of_a_column_and_what_is_better_beyond_doubt_stand_out() -> None:
    shown = {table.title: table for table in tables(report())}
    assert shown["RMSE"].strong == {(0, 1)}
    assert shown["RMSE"].rows[0] == ["bayes", "1.0000"]
    difference = shown["RMSE, difference to bias"]
    assert difference.rows == [["bayes", "-0.0200 [-0.0300, -0.0100]"]]
    assert difference.strong == {(0, 1)}


def test_a_row_that_sat_some_groups_alone_is_shown_and_does_not_stand_out() -> None:
    shares = [row.model_copy(update={"cells": dict.fromkeys(("20%", "50%"), row.cells["k=0"])}) for row in ROWS]
    good = Cell(figures={name: value / 2 for name, value in ROWS[-1].cells["k=0"].figures.items()})
    some = Row(name="new", recommender="new", cells={"20%": good})
    made = report().model_copy(update={"measure": "transfer", "groups": {"20%": (3, 4), "50%": (3, 4)}})
    (errors,) = [table for table in tables(made.model_copy(update={"rows": [*shares, some]})) if table.title == "RMSE"]
    assert errors.rows[-1][0] == "new"
    assert errors.rows[-1][2] == ""
    assert not [place for place in errors.strong if place[0] == len(errors.rows) - 1]


def test_the_page_of_html_needs_no_other_file_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    write(report(), TIMINGS, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "cinema &lt;&amp;&gt;" in page
    assert page.count("<svg") == 3
    for reference in ("src=", "<link", "<script", "url(http"):
        assert reference not in page


def test_json_reads_back_equal(tmp_path: Path) -> None:
    write(report(), TIMINGS, tmp_path)
    assert Report.model_validate_json((tmp_path / "report.json").read_bytes()) == report()
    assert Timings.model_validate_json((tmp_path / "timings.json").read_bytes()) == TIMINGS


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two reports, of one the times and of the other what is said of it, and what another command printed."""
    (tmp_path / "a.json").write_text(report().model_dump_json())
    (tmp_path / "a.timings.json").write_text(TIMINGS.model_dump_json())
    (tmp_path / "b.json").write_text(report().model_dump_json())
    (tmp_path / "b.remarks").write_text("What limits it.\n")
    (tmp_path / "speed.txt").write_text("$ python -m speed\nfast\n")
    return tmp_path


def test_the_page_of_results_is_made_of_what_is_kept_alone(kept: Path) -> None:
    page = results_page(kept)
    assert page == results_page(kept)
    assert page.count("Protocol kshot on cinema") == 2
    assert page.count("\nwarmstart evaluate\n") == 2
    assert page.index("## b\n") < page.index("What limits it.") < page.rindex("### ")
    assert "| bayes | **1.0000** |" in page
    assert "| [speed.txt](results/speed.txt) | `python -m speed` | 2 lines |" in page


def test_the_page_of_results_begins_with_the_best_row_beside_the_best_simple_one(kept: Path) -> None:
    """Of ROWS the error grows from bayes on: bias is the next."""
    short = results_page(kept).split("\n## a\n")[0]
    assert "| [a](#a) | k=0 | RMSE | `bayes` 1.0000 | `bias` 1.1000 | -0.0200 [-0.0300, -0.0100] |" in short


def test_groups_that_stand_for_all_are_few() -> None:
    def chosen(*groups: str) -> list[str]:
        return few_groups(report().model_copy(update={"groups": dict.fromkeys(groups, (3, 4))}))

    assert chosen("user_cold", "item_cold", "both_cold") == ["user_cold", "item_cold", "both_cold"]
    assert chosen("k=0", "k=1", "k=3", "k=5", "k=10", "k=20") == ["k=0", "k=5", "k=20"]
    assert chosen("20%", "20%, k=1", "20%, k=3", "50%", "50%, k=1") == ["20%", "50%"]


def test_each_report_has_a_page_with_all_its_tables(kept: Path) -> None:
    pages = whole_reports(kept)
    assert set(pages) == {"a.md", "b.md"}
    assert all(f"\n## {table.title}\n" in page for page in pages.values() for table in tables(report()))
    assert ["\n## Times\n" in page for page in pages.values()] == [True, False]
    assert "What limits it." in pages["b.md"]


def test_the_same_seed_gives_the_same_report_times_apart(tmp_path: Path) -> None:
    data = read_cinema(tmp_path / "cinema")
    plan = Plan("kshot", ["mf"], settings={"bayes": {"n_factors": 2, "iterations": 3}}, blend=["bias", "mf"])
    for name in ("first", "second"):
        found = evaluate(data, plan)
        write(found.report, found.timings, tmp_path / name)
    for file in ("report.json", "curve.svg", "calibration.svg"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    pages = [(tmp_path / name / "report.md").read_text().split("## Times")[0] for name in ("first", "second")]
    assert pages[0] == pages[1]
    assert json.loads((tmp_path / "first" / "report.json").read_text())["format_version"] == 1


def test_the_page_of_figures_has_a_row_for_each_recommender_that_was_measured() -> None:
    """With the figures that its report has, from the reports that are kept."""
    results = Path(__file__).parents[2] / "docs" / "results"
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\d.]*) \|", figures_page(results), re.MULTILINE)
    report = Report.model_validate_json((results / "movielens-1m-kshot.json").read_bytes())
    measured = {row.name: f"{row.cells['k=0'].figures['rmse']:.3f}" for row in report.rows if row.name in RECOMMENDERS}
    assert {name: error for name, _, error in rows if error} == measured
    assert all(RECOMMENDERS[name].role == role for name, role, _ in rows)
