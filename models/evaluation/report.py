"""Write an evaluation down: JSON to compute with, Markdown and one self-contained HTML page to read.

report.json     every figure; the same evaluation gives the same bytes
timings.json    what it cost, which is never the same twice
report.md       the tables, times last; curve.svg and calibration.svg beside it
report.html     the same with plots, accuracy against speed among them
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.evaluation import plots
from models.evaluation.results import Report, Timings
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


def markdown(report: Report, timings: Timings | None = None) -> str:
    """The report as a page of Markdown; times, if given, come last under a heading of their own."""
    page = TEMPLATES.get_template("report.md.j2")
    return page.render(report=report, tables=tables(report), times=times_table(timings) if timings else None, level="#")


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


def results_page(folder: Path) -> str:
    """`docs/RESULTS.md`, made of the reports `<name>.json` in `folder` (times: `<name>.timings.json`), by name.

    Above a report's tables stands what somebody has to say of them, in words alone, as kept in `<name>.remarks`. Behind
    all reports stands what other commands printed, as kept in `<name>.txt`, whose first line is `$ <command>`.
    """
    chapters: list[tuple[Report, str, list[Table], Table | None]] = []
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(TIMES_SUFFIX):
            continue
        report = Report.model_validate_json(file.read_bytes())
        times = file.with_name(file.name.removesuffix(".json") + TIMES_SUFFIX)
        timings = Timings.model_validate_json(times.read_bytes()) if times.is_file() else None
        said = file.with_suffix(".remarks")
        remarks = said.read_text(encoding="utf-8").strip() if said.is_file() else ""
        chapters.append((report, remarks, tables(report), times_table(timings) if timings else None))
    printed = [(file.stem, file.read_text().rstrip()) for file in sorted(folder.glob("*.txt"))]
    return TEMPLATES.get_template("results.md.j2").render(chapters=chapters, printed=printed)
