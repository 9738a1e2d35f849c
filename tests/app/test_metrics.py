"""Metrics of several workers: any of them tells those of all."""

import os
import re
import subprocess
import sys
from pathlib import Path

WORKER = """
import sys
from app import telemetry
telemetry.REFUSED.labels("too many").inc(2)
telemetry.REQUESTS_WAITING.set(3)
telemetry.WORKERS.labels("1").set(1)
print("up", flush=True)
for line in sys.stdin:
    print(telemetry.exposition().decode(), "end", sep="\\n", flush=True)
"""


def worker(folder: Path) -> "subprocess.Popen[str]":
    """A process that counts two refusals, says when it has, and tells the metrics for every line that it is sent."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    started = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    return started


def told(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Refusals, requests that wait, workers: as one of them tells it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    text = "".join(iter(process.stdout.readline, "end\n"))
    assert text.startswith(f"# Answered by process {process.pid}.\n")
    lines = re.findall(r"^warmstart_(refused_total|requests_waiting|workers)(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_each_worker_tells_what_all_have_counted_and_what_those_that_live_hold(tmp_path: Path) -> None:
    one, other = worker(tmp_path), worker(tmp_path)
    try:
        both = {"refused_total": 4.0, "requests_waiting": 6.0, "workers": 2.0}
        assert told(one) == told(other) == both
        one.kill()
        one.wait()
        assert told(other) == {"refused_total": 4.0, "requests_waiting": 3.0, "workers": 1.0}
    finally:
        one.kill()
        other.kill()
        one.wait()
        other.wait()
