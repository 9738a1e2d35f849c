"""The lock: every package that the service is made of, by version and digest, from nowhere in particular."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
TORCH = "torch"
"""Comes in builds for a CPU and for CUDA, with digests of their own; the container chooses one."""


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """Package → version."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_entry_has_digests_and_no_address() -> None:
    entries = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry[:200]


def test_the_lock_has_what_the_project_asks_for(locked: dict[str, str], project: dict[str, Any]) -> None:
    """`make lock` after a dependency was changed."""
    for text in project["project"]["dependencies"]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        assert name == TORCH or wanted.specifier.contains(locked[name]), text


def test_builds_of_torch_are_left_to_the_container(locked: dict[str, str]) -> None:
    assert not [name for name in locked if name == TORCH or name.startswith(("nvidia", "cuda", "triton"))]
    assert {"sympy", "networkx", "fsspec"} <= locked.keys(), "what the CPU build needs is locked"
