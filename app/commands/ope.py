"""`warmstart ope`: what the log of the installation says that a domain, or a checkpoint in it, earns."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.terminal import facts, fail, show
from app.settings import Settings

if TYPE_CHECKING:
    from app.services.evaluation import Scope, Verdict
    from models.recommender import Role

app = typer.Typer()


@app.command("ope")
def ope_command(
    domain: Annotated[str, typer.Option(help="Domain whose slates are read.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint to evaluate beside what is in service; a name, not a path.")
    ] = None,
    role: Annotated[str | None, typer.Option(help="What it is evaluated as. Default: its usual role.")] = None,
    slates: Annotated[int, typer.Option(min=1, help="Newest slates that are read.")] = 10_000,
    places: Annotated[int, typer.Option(min=1, help="First places of each slate that count.")] = 1,
    epsilon: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of places filled at random. Default: as the domain is set to."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
) -> None:
    """Estimate from the log of slates and rewards what is earned a place: off-policy, with intervals."""
    from app.services.evaluation import Scope
    from models.recommender import ROLES

    wanted = next((known for known in ROLES if known == role), None)
    if role is not None and wanted is None:
        raise fail(f"there is no role {role!r}; the roles are {', '.join(ROLES)}.")
    verdict = _run(domain, Scope(slates, places, epsilon, confidence), checkpoint, wanted)
    told = verdict.told()
    show(_earned(told["policies"]))
    for name in ("present", "candidate"):
        if told[name] is not None:
            show(_value(name, told[name], confidence))
    if told["present"] is None:
        show("No place could be replayed whose propensity is known.")
    beside = told["comparison"]
    if beside is not None:
        show(facts({"candidate less present": beside["difference"], f"at least, at {confidence:g}": beside["low"]}))


def _run(domain: str, scope: "Scope", checkpoint: str | None, role: "Role | None") -> "Verdict":
    """Evaluate in the installation that the settings name; problems become sentences."""
    from app.errors import PROBLEMS, Problem
    from app.services.deploy import Deployments
    from app.services.installation import Installation
    from app.storage.errors import StorageUnavailable, UnsafeDatabase

    async def run() -> "Verdict":
        installation = await Installation.open(Settings())
        try:
            return await Deployments(installation).evaluate(domain, scope, checkpoint, role)
        finally:
            await installation.close()

    try:
        return asyncio.run(run())
    except Problem as problem:
        reasons = [str(error["reason"]) for error in problem.extra.get("errors", [])]
        raise fail(" ".join([PROBLEMS[problem.slug].title, *reasons])) from problem
    except (StorageUnavailable, UnsafeDatabase, OSError, ValueError) as failure:
        raise fail(str(failure)) from failure


def _earned(policies: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    grid = Table("logged by", title="What was earned", title_justify="left")
    for name in ("slates", "judged", "reward"):
        grid.add_column(name, justify="right")
    for row in policies:
        grid.add_row(row["policy"], str(row["slates"]), str(row["judged"]), _number(row["reward"]))
    return grid


def _value(name: str, value: dict[str, Any], confidence: float) -> Any:
    from rich.table import Table

    caption = (
        f"{value['places']} places, worth {value['effective_samples']:g} of its own; "
        f"{value['invalid_share']:.1%} more have no valid propensity"
    )
    grid = Table("estimator", title=name, caption=caption, title_justify="left", caption_justify="left")
    for head in ("weights up to", "reward a place", f"{confidence:.0%} interval"):
        grid.add_column(head, justify="right")
    for row in value["estimates"]:
        clip = "any" if row["clip"] is None else f"{row['clip']:g}"
        interval = f"[{_number(row['low'])}, {_number(row['high'])}]"
        grid.add_row(row["estimator"].upper(), clip, _number(row["value"]), interval)
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
