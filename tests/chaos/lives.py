"""A service that is killed and started hundreds of times, without an import of torch for each of its lives.

`nursery` runs `python -m tests.chaos.lives` once: that process imports the application and forks one service after the
other, each in a session of its own. From there on a life is `warmstart serve` as it is: it opens the database and
recovers its log, migrates, loads and warms what is to be served, listens. Only the imports are had already.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.cli import main as warmstart
from tests.e2e.service import READY_SECONDS, NotReady, free_port, settings_as_environment


@dataclass
class Life:
    """A service, from its start to its end."""

    pid: int
    url: str
    _nursery: subprocess.Popen[str]
    ready_after: float = 0.0
    """Seconds from its fork to its first good answer."""
    _over: bool = False

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until it is gone. Harmless where it is."""
        if not self._over:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            _line(self._nursery)
            self._over = True


@dataclass(frozen=True)
class Nursery:
    """Starts services, one at a time."""

    _process: subprocess.Popen[str]

    @contextmanager
    def life(self, data_dir: Path, *, fault: str | None = None, **settings: Any) -> Iterator[Life]:
        """A service while the block lasts, which may kill it sooner; `settings` as for `settings_as_environment`.

        `fault` names a module whose `install()` spoils the service, so that a test can show that it would notice.
        Raises NotReady where it does not come up.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        log = data_dir / "service.log"
        port = free_port()
        environment = settings_as_environment(data_dir, **{"log_level": "warning", "port": port, **settings})
        started = time.monotonic()
        assert self._process.stdin is not None
        print(json.dumps([environment, str(log), fault]), file=self._process.stdin, flush=True)
        life = Life(int(_line(self._process)), f"http://127.0.0.1:{port}", self._process)
        try:
            _wait_until_ready(life, log, started + READY_SECONDS)
            life.ready_after = time.monotonic() - started
            yield life
        finally:
            life.kill()


@contextmanager
def nursery() -> Iterator[Nursery]:
    """The process that services are forked from."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.lives"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a pool of threads does not survive a fork
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Nursery(process)
    finally:
        process.kill()
        process.communicate()


def _wait_until_ready(life: Life, log: Path, deadline: float) -> None:
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{life.url}/readyz", timeout=5).status_code == 200:
                return
        if not Path(f"/proc/{life.pid}").exists():
            break
        time.sleep(0.02)
    raise NotReady(f"a service did not come up\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def main() -> None:
    """Read an order a line, `[environment, log, fault]`; answer with a pid, and with another line once that ended."""
    for name in ("app.main", "uvicorn.protocols.http.httptools_impl", "uvicorn.loops.uvloop"):
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _serve(*json.loads(line))
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


def _serve(environment: dict[str, str], log: str, fault: str | None) -> None:
    """Be `warmstart serve`, and never return."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment)
        if fault:
            importlib.import_module(fault).install()
        sys.argv = ["warmstart", "serve"]
        warmstart()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
