"""The real service, or any other HTTP server, in processes of its own on a free port of 127.0.0.1."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

READY_SECONDS = 120.0
"""Longest wait for a server to answer its readiness path."""
STOP_SECONDS = 20.0
"""Time to end in good order before the rest is killed."""
COMMAND = (sys.executable, "-c", "from app.cli import main; main()")
"""The console script, by the interpreter that runs the tests."""


class NotReady(Exception):
    """A server that ended or went silent before it was ready; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A server that is up."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    """What it wrote to stdout and stderr."""
    ready_after: float
    """Seconds from its start to its first good answer."""

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, timeout: float = 30.0) -> httpx.Client:
        """A client with the base URL set."""
        return httpx.Client(base_url=self.url, timeout=timeout)

    def kill(self) -> None:
        """End all its processes at once, as a power cut would (SIGKILL)."""
        _signal_group(self.process, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, wait, and kill whatever of it is still there."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()

    def resident_bytes(self) -> int:
        """Resident memory of the process and its children (shared pages count once for each)."""
        pages = 0
        for pid in (self.process.pid, *_children(self.process.pid)):
            with suppress(FileNotFoundError, ProcessLookupError):
                pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    ready: str = "/readyz",
    timeout: float = READY_SECONDS,
) -> Iterator[Server]:
    """A server while the block lasts; `{port}` in `command` stands for the port that it is to take, a free one unless
    it is given.

    Raises NotReady where `ready` is not answered with 200 in time.
    """
    port = port or free_port()
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}{ready}", log, started + timeout)
        yield (server := Server(process, port, log, time.monotonic() - started))
        server.stop()
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()


@contextmanager
def warmstart(
    data_dir: Path, *, command: str = "serve", port: int | None = None, timeout: float = READY_SECONDS, **settings: Any
) -> Iterator[Server]:
    """`warmstart serve` (or another `command` that serves); `settings` as for `settings_as_environment`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    environment = settings_as_environment(data_dir, **settings)
    run = [*COMMAND, command, "--port", "{port}"]
    with serving(run, data_dir / "service.log", environment=environment, port=port, timeout=timeout) as server:
        yield server


def settings_as_environment(data_dir: Path, **settings: Any) -> dict[str, str]:
    """Settings of the service as environment variables: `workers=2` is WARMSTART_WORKERS=2.

    Unless they say so nobody is told of its end beforehand, and no checkpoint goes because the machine is busy.
    """
    given = {"data_dir": data_dir, "drain_seconds": 0, "probation_seconds": 0, **settings}
    return {f"WARMSTART_{name.upper()}": str(value) for name, value in given.items()}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, deadline: float) -> None:
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        if process.poll() is not None:
            raise NotReady(f"ended with {process.returncode} before it was ready\n{_tail(log)}")
        time.sleep(0.05)
    raise NotReady(f"not ready in time\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def cpu_seconds(pid: int) -> float:
    """Time on a core that a process has had, with its children that live and those that have ended."""
    seconds = 0.0
    for one in (pid, *_children(pid)):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []
