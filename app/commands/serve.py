"""`warmstart serve` and `warmstart demo`: the service, from what there is or from nothing."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from app.commands.terminal import fail, progress_bars
from app.settings import Settings

app = typer.Typer()

DEMO_DATA = "movielens-100k"
DEMO_RECOMMENDERS = ("content", "bayes", "maml", "ease")
"""One for each role that a single domain has."""
DEMO_DOMAINS = ("thrills", "hearts")
"""The same films as two catalogues, `movielens-100k-domains`, with a transfer both ways."""
DEMO_DOMAIN_RECOMMENDERS = ("bayes", "ease")
"""What each of the two has that knows nothing of the other."""
DEMO_TRANSFER = "ktlf"

Host = Annotated[str | None, typer.Option(help="Address to listen on; WARMSTART_HOST otherwise.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; WARMSTART_PORT otherwise.")]
Workers = Annotated[int | None, typer.Option(help="Processes that serve; WARMSTART_WORKERS otherwise.")]


@app.command()
def serve(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints; WARMSTART_CHECKPOINT_DIR otherwise.")
    ] = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
) -> None:
    """Run the service. It takes up the newest checkpoint of each domain and role, unless a reload decided otherwise."""
    given = {"CHECKPOINT_DIR": checkpoints, "HOST": host, "PORT": port, "WORKERS": workers}
    # Workers are processes of their own: settings reach them through the environment.
    os.environ.update({f"WARMSTART_{name}": str(value) for name, value in given.items() if value is not None})
    settings = Settings()
    _check_address(settings)
    _run(settings)


@app.command()
def demo(host: Host = None, port: Port = None) -> None:
    """Fetch MovieLens-100K, train on it what is missing, which is done once, and serve it: as one catalogue, `movies`,
    and as two, `thrills` and `hearts`, with what is known of people carried between them."""
    settings = Settings()
    # Read when torch is imported. The demo's data is so small that a second thread waits more than it works.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        train_missing(settings)
    except (OSError, RuntimeError) as error:
        raise fail(str(error)) from error
    serve(host=host, port=port)


@dataclass(frozen=True)
class _Wanted:
    """A checkpoint of the demo."""

    data: str
    target: str
    """Domain that it answers for."""
    recommender: str
    alone: bool = False
    """Whether it learns from that domain alone."""
    settings: Mapping[str, str] = field(default_factory=dict)


def demo_checkpoints() -> list[_Wanted]:
    """All that the demo serves."""
    wanted = [_Wanted(DEMO_DATA, "movies", name) for name in DEMO_RECOMMENDERS]
    for target, source in zip(DEMO_DOMAINS, reversed(DEMO_DOMAINS), strict=True):
        data = f"{DEMO_DATA}-domains"
        wanted += [_Wanted(data, target, name, alone=True) for name in DEMO_DOMAIN_RECOMMENDERS]
        wanted.append(_Wanted(data, target, DEMO_TRANSFER, settings={"source": source, "target": target}))
    return wanted


def train_missing(settings: Settings) -> list[Path]:
    """Train what the demo serves and has no checkpoint yet; the folders of what was trained."""
    from app.commands.blend import describe, fit_blends
    from app.commands.train import train_checkpoint
    from models.datasets.fetch import fetch
    from models.datasets.folder import read

    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    there = set(_usable(settings.checkpoints))
    missing = [wanted for wanted in demo_checkpoints() if (wanted.target, wanted.recommender) not in there]
    made = []
    with progress_bars() as progress:
        for name in dict.fromkeys(wanted.data for wanted in missing):
            data = read(fetch(name, settings.data_dir / "datasets" / name, progress), progress)
            for wanted in [wanted for wanted in missing if wanted.data == name]:
                kept = train_checkpoint(
                    wanted.recommender,
                    wanted.settings,
                    data,
                    settings.checkpoints,
                    domain=wanted.target if wanted.alone else None,
                    device=settings.device,
                    progress=progress,
                )
                judged = "".join(f", {figure} {value:.3f}" for figure, value in [*kept.metrics.items()][:1])
                typer.echo(
                    f"trained {wanted.recommender} for {wanted.target} in {kept.fit_seconds:.0f} s{judged}", err=True
                )
                made.append(kept.path)
            for blend in fit_blends(settings.checkpoints, data):
                typer.echo(describe(blend), err=True)
    return made


def _usable(folder: Path) -> Iterator[tuple[str, str]]:
    """(domain, recommender) of checkpoints that this version can load; one from an earlier version may not fit."""
    from models import checkpoint

    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            with suppress(checkpoint.CheckpointError):
                card = checkpoint.load(path).card
                yield from ((domain, card.recommender) for domain in card.targets)


def _check_address(settings: Settings) -> None:
    """End the command where others than this machine would be let near who nobody asks for a key."""
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return
    from app.services.access import may_listen_anywhere
    from app.storage.errors import StorageUnavailable, UnsafeDatabase

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        safe = asyncio.run(may_listen_anywhere(settings))
    except (StorageUnavailable, UnsafeDatabase, ValueError) as error:
        raise fail(str(error)) from error
    if not safe:
        raise fail(
            f"whoever reaches {settings.host} could use the service, for there is no key yet. Make one with "
            "`warmstart keys create`, or set WARMSTART_ACCESS=proxy where a proxy in front of it asks who they are."
        )


def _run(settings: Settings) -> None:
    import uvicorn

    cores = len(os.sched_getaffinity(0))
    threads = settings.torch_threads or max(1, cores // (2 * settings.workers))
    # Read by the tensor library when it is imported, which each worker does for itself.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ["WARMSTART_TORCH_THREADS"] = str(threads)
    with _metrics_shared(settings.workers):
        uvicorn.run(
            "app.main:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=10,
        )


@contextmanager
def _metrics_shared(workers: int) -> Iterator[None]:
    """A folder in which several workers keep their metrics, so that any of them can tell those of all."""
    name = "PROMETHEUS_MULTIPROC_DIR"  # read by the client library when a worker imports it
    if workers == 1 or name in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="warmstart-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        yield
