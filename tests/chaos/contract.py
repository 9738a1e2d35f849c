"""Does the service keep to its OpenAPI document? `python -m tests.chaos.contract [--cases 10000]`.

Schemathesis makes requests from the document, good ones and bad ones, for every route: at each boundary of the schema,
then at random, then over again from another seed until there were enough. No answer may be a 5xx; each must have a
status, a content type and a body that the document has, so that every error is `application/problem+json`; what the
schema forbids must be refused, other methods too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe

import httpx

from tests.chaos.checkpoints import BASES
from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.lives import Nursery, nursery
from tests.chaos.world import stocked

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
EXAMPLES = 100
"""Random requests for each route in one go of the long form."""


@dataclass
class Outcome:
    """What was seen."""

    cases: int = 0
    operations: int = 0
    failures: list[str] = field(default_factory=list)
    """The name of a check and what it says."""

    def told(self) -> str:
        """In a line."""
        return f"{self.cases:,} cases over {self.operations} operations: {len(self.failures)} violations"


def run(
    services: Nursery,
    folder: Path,
    bases: Path,
    url: str,
    cases: int,
    examples: int = EXAMPLES,
    phases: Sequence[str] = (),
) -> Outcome:
    """Run until there were `cases`; `phases` of Schemathesis, all of them where none are given."""
    shutil.copytree(bases, folder / "checkpoints")
    outcome = Outcome()
    seed = 0
    key = folder / "key"
    key.write_text(token_urlsafe(32))
    with services.life(folder, database_url=url, bootstrap_admin_key_file=key) as life:
        header = {"Authorization": f"Bearer {key.read_text()}"}
        books = {"kinds": {"view": {"value": 4}}}
        httpx.put(f"{life.url}/v1/domains/books", json=books, headers=header).raise_for_status()
        while outcome.cases < cases and not outcome.failures:
            report = folder / f"report-{seed}.json"
            _go(f"{life.url}/openapi.json", key.read_text(), report, seed, examples, phases, outcome)
            seed += 1
    return outcome


def _go(
    document: str, key: str, report: Path, seed: int, examples: int, phases: Sequence[str], outcome: Outcome
) -> None:
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", document),
        *("--header", f"Authorization: Bearer {key}"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", str(seed), "--no-shrink"),
        *("--report", "json", "--report-json-path", str(report), "--suppress-health-check", "all"),
        *("--continue-on-failure", "--no-color", *(["--phases", ",".join(phases)] if phases else [])),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.chaos.contract_hooks", "PYTHONPATH": os.getcwd()}
    # In a folder of its own, where it may keep what it learns between runs.
    done = subprocess.run(command, cwd=report.parent, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"Schemathesis ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    told = json.loads(report.read_text())
    outcome.cases += told["test_cases"]["generated"]
    outcome.operations = told["operations"]["tested"]
    if done.returncode or told["failures"] or told["errors"]:
        outcome.failures.append(_excerpt(done.stdout))


def _excerpt(output: str) -> str:
    """The part of Schemathesis's output about failures."""
    return output.partition("FAILURES")[2].partition("WARNINGS")[0][:20_000] or output[-4_000:]


def main() -> None:
    parser = argparse.ArgumentParser(description="hold the service against its OpenAPI document")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    with scratch() as folder, nursery() as services:
        bases = stocked(folder / "bases", *BASES)
        for kind in KINDS if arguments.database == "both" else (arguments.database,):
            with database(kind, folder) as url:
                (folder / kind).mkdir()
                outcome = run(services, folder / kind, bases, url, arguments.cases)
            print(f"{kind}: {outcome.told()}", *outcome.failures, sep="\n", flush=True)
            failed |= bool(outcome.failures)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
