"""Running the scripts of `examples/` as a person would."""

import os
import subprocess
import sys

from tests.test_docs import ROOT


def told(name: str, url: str) -> str:
    """What an example prints, run against the service at `url`; it must end well."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", url],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
