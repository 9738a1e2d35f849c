"""Write an evaluation down: JSON to compute with, Markdown and one self-contained HTML page to read.

report.json     every figure; the same evaluation gives the same bytes
timings.json    what it cost, which is never the same twice
report.md       the tables, times last; curve.svg and calibration.svg beside it
report.html     the same with plots, accuracy against speed among them
"""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.evaluation import plots
from models.evaluation.results import Report, Timings
from models.evaluation.summary import main_tables, summary
from models.evaluation.tables import Table, tables, times_table

TIMES_SUFFIX = ".timings.json"
TEMPLATES = Environment(
    loader=PackageLoader("models.evaluation"),
    autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write(report: Report, timings: Timings, out: Path) -> None:
    """Write all files of a report into the folder `out`."""
    files = {
        "report.json": report.model_dump_json(indent=1) + "\n",
        "timings.json": timings.model_dump_json(indent=1) + "\n",
        "curve.svg": plots.curve(report),
        "calibration.svg": plots.calibration(report),
        "report.md": markdown(report, timings),
        "report.html": html(report, timings),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text)


def markdown(report: Report, timings: Timings | None = None, *, name: str = "", remarks: str = "") -> str:
    """The report as a page of Markdown; times, if given, come last under a heading of their own. A report that is kept
    has a name and perhaps remarks, and its pictures are not kept."""
    times = times_table(timings) if timings else None
    page = TEMPLATES.get_template("report.md.j2")
    return page.render(report=report, tables=tables(report), times=times, name=name, remarks=remarks, pictures=not name)


def html(report: Report, timings: Timings) -> str:
    """The report as one page of HTML that needs no other file."""
    pictures = {
        "Over the questions": plots.curve(report),
        "Calibration": plots.calibration(report),
        "Accuracy against speed": plots.accuracy_against_speed(report, timings),
    }
    page = TEMPLATES.get_template("report.html.j2")
    inline = {title: svg[svg.index("<svg") :] for title, svg in pictures.items()}
    return page.render(report=report, tables=[*tables(report), times_table(timings)], pictures=inline)


@dataclass(frozen=True)
class Chapter:
    """A report that is kept, with what goes with it."""

    name: str
    report: Report
    timings: Timings | None
    remarks: str
    """What somebody has to say of it, in words alone."""

    @property
    def main_tables(self) -> list[Table]:
        """The tables that say most."""
        return main_tables(self.report, tables(self.report))


@dataclass(frozen=True)
class Printed:
    """What another command printed."""

    name: str
    command: str
    n_lines: int


def chapters(folder: Path) -> list[Chapter]:
    """The reports `<name>.json` in `folder`, by name, with times of `<name>.timings.json` and what is said of them in
    `<name>.remarks`."""
    found = []
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(TIMES_SUFFIX):
            continue
        times, said = file.with_name(file.stem + TIMES_SUFFIX), file.with_suffix(".remarks")
        timings = Timings.model_validate_json(times.read_bytes()) if times.is_file() else None
        remarks = said.read_text(encoding="utf-8").strip() if said.is_file() else ""
        found.append(Chapter(file.stem, Report.model_validate_json(file.read_bytes()), timings, remarks))
    return found


def results_page(folder: Path) -> str:
    """`docs/RESULTS.md`: the reports in `folder` in short, their main tables, and what other commands printed into
    `<name>.txt`, whose first line is `$ <command>`."""
    found, printed = chapters(folder), []
    for file in sorted(folder.glob("*.txt")):
        lines = file.read_text(encoding="utf-8").splitlines()
        printed += [Printed(file.name, line.removeprefix("$ "), len(lines)) for line in lines[:1]]
    short = summary({chapter.name: chapter.report for chapter in found})
    return TEMPLATES.get_template("results.md.j2").render(chapters=found, printed=printed, short=short)


def whole_reports(folder: Path) -> dict[str, str]:
    """Page → text: each report in `folder` with all its tables, as `<name>.md`."""
    return {f"{c.name}.md": markdown(c.report, c.timings, name=c.name, remarks=c.remarks) for c in chapters(folder)}
