"""Structured logs and Prometheus metrics."""

import logging
import os
import sys
from functools import lru_cache
from pathlib import Path

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from app.settings import Settings

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

REQUEST_SECONDS = Histogram(
    "warmstart_request_seconds", "Time from the request to its answer.", ["method", "route", "status"], buckets=SECONDS
)
ANSWER_SECONDS = Histogram(
    "warmstart_answer_seconds",
    "Time to make a list, by how much is known of the user there and by what it was made from.",
    ["domain", "evidence", "source"],
    buckets=SECONDS,
)
"""`evidence`: interactions in the domain, none or by the steps of the fixed schedule; `source`: states of the `cache`,
`adapted` now, or the `fallback`."""
BATCH_SIZE = Histogram("warmstart_batch_size", "Questions computed together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
BATCH_SECONDS = Histogram("warmstart_batch_seconds", "Time to compute one batch.", buckets=SECONDS)
QUEUE_LENGTH = Gauge("warmstart_queue_length", "Questions that wait for computation.", multiprocess_mode="livesum")
STATES = Counter("warmstart_user_states_total", "User states, by where they came from.", ["source"])
FALLBACKS = Counter("warmstart_fallbacks_total", "Answers without any checkpoint.", ["domain"])
RELOADS = Counter("warmstart_reloads_total", "Checkpoints taken into service, and those that could not be.", ["result"])
BEHIND = Gauge(
    "warmstart_checkpoints_behind",
    "Domains and roles that a worker serves from another checkpoint than is wanted.",
    multiprocess_mode="livesum",
)
SHADOW_COMPARISONS = Counter("warmstart_shadow_comparisons_total", "Answers made twice for a trial.", ["result"])
SHADOW_DIFFERENCE = Histogram(
    "warmstart_shadow_difference",
    "Mean absolute difference of the ratings to expect, an answer.",
    buckets=(0.001, 0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5),
)
SHADOW_OVERLAP = Histogram(
    "warmstart_shadow_overlap",
    "Share of a list's items that the checkpoint on trial chose too.",
    buckets=(0, 0.1, 0.25, 0.5, 0.75, 0.9, 1),
)
SHADOW_SECONDS = Histogram(
    "warmstart_shadow_seconds", "Time to make either answer, alone and without cached states.", ["by"], buckets=SECONDS
)
WITHDRAWN = Counter("warmstart_withdrawn_total", "Checkpoints put out of service by the service itself.", ["reason"])
REFUSED = Counter("warmstart_refused_total", "Requests refused because of too many others, by why.", ["reason"])
CONCURRENCY_LIMIT = Gauge(
    "warmstart_concurrency_limit", "Requests that may be worked on together.", multiprocess_mode="livesum"
)
REQUESTS_IN_PROGRESS = Gauge(
    "warmstart_requests_in_progress", "Requests that are worked on.", multiprocess_mode="livesum"
)
REQUESTS_WAITING = Gauge(
    "warmstart_requests_waiting", "Requests that wait for their turn.", multiprocess_mode="livesum"
)
DEADLINES_PASSED = Counter("warmstart_deadlines_passed_total", "Requests that were not answered in time.")
ITEMS_LEARNT = Counter("warmstart_item_rows_learnt_total", "Rows of items that changed by what came in about them.")
ITEMS_TO_LEARN = Gauge(
    "warmstart_items_to_learn", "Items whose rows are to be learnt again.", multiprocess_mode="livesum"
)
WORKERS = Gauge("warmstart_workers", "Processes that serve, by version.", ["version"], multiprocess_mode="livesum")


def answer_seconds(domain: str, support_size: int, source: str) -> Histogram:
    """The histogram of lists made for somebody of whom so many interactions are known in the domain."""
    steps = ((20, "20+"), (5, "5-19"), (1, "1-4"), (0, "0"))
    return _answer_seconds(domain, next(name for least, name in steps if support_size >= least), source)


@lru_cache(maxsize=1000)
def _answer_seconds(domain: str, evidence: str, source: str) -> Histogram:
    """Looking one up by its labels takes longer than observing."""
    return ANSWER_SECONDS.labels(domain, evidence, source)


def exposition() -> bytes:
    """All metrics as Prometheus reads them: of all workers where there are several, whichever of them is asked.

    Where `PROMETHEUS_MULTIPROC_DIR` is set, which `warmstart serve` does for several workers, each keeps its numbers in
    a file there. Counters of a worker that is gone still count; what it had under way does not.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    said = f"# Answered by process {os.getpid()}.\n".encode()
    if folder is None:
        return said + generate_latest(REGISTRY)
    for pid in {int(path.stem.rpartition("_")[2]) for path in Path(folder).glob("gauge_live*_*.db")}:
        if not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return said + generate_latest(together)


def configure_logging(settings: Settings) -> None:
    """Log lines to stderr: for people on a terminal, JSON elsewhere."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
