"""`warmstart sources`: from which other domain a transfer to one of them should come."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.commands.terminal import fail, progress_bars, show

if TYPE_CHECKING:
    from models.evaluation.source_choice import Candidate

app = typer.Typer()


@app.command("sources")
def sources_command(
    data: Annotated[Path, typer.Option(help="Data set folder with two domains or more.")],
    target: Annotated[str, typer.Option(help="Domain that is to be answered for.")],
    seed: Annotated[int, typer.Option(help="Which users are asked.")] = 0,
) -> None:
    """Rank the other domains by what a transfer from them would save, with how sure that is.

    A cheap transfer is trained from each; the gain is the RMSE that it saves beside a model of the target alone, on
    validation users who are cold there.
    """
    from models.datasets.description import DatasetError
    from models.datasets.folder import read
    from models.evaluation.source_choice import rank_sources
    from models.recommender import FitOptions

    try:
        with progress_bars() as progress:
            whole = read(data, progress)
            names = [domain.name for domain in whole.schema.domains]
            if target not in names:
                raise fail(f"there is no domain {target!r}; the data has {', '.join(names)}.")
            ranked = rank_sources(whole, names.index(target), FitOptions(seed=seed, progress=progress))
    except (DatasetError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    show(_table_of(ranked))


def _table_of(ranked: "list[Candidate]") -> Table:
    sizes = sorted({size for candidate in ranked for size in candidate.gain_at})
    table = Table("source", box=None, pad_edge=False, header_style="bold")
    headers = [
        "RMSE saved",
        "95 % interval",
        *(f"at k={size}" for size in sizes),
        "asked",
        "users in both",
        "items in both",
    ]
    for header in headers:
        table.add_column(header, justify="right")
    for candidate in ranked:
        gain = candidate.gain
        told = (
            ("-", "too few in both")
            if gain is None
            else (f"{gain.difference:.4f}", f"{gain.low:.4f} to {gain.high:.4f}")
        )
        at = [f"{candidate.gain_at[size]:.4f}" if size in candidate.gain_at else "-" for size in sizes]
        counts = (candidate.asked, candidate.shared_users, candidate.shared_items)
        table.add_row(candidate.source, *told, *at, *(f"{count:,}" for count in counts))
    return table
