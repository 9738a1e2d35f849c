"""The command line: what it prints, where, and with which exit code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from app import __version__
from app.cli import app
from app.security import key_id_of
from models.checkpoint import load, read_card
from models.datasets.folder import write
from models.registry import RECOMMENDERS
from tests.models.folders import grid_tables, write_files


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "grid"
    write(grid_tables(), folder)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The one sentence on stderr of a command that cannot be done; nothing on stdout, exit code 2, no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
    return result.stderr


def train(grid: Path, out: Path, *more: object) -> Result:
    return run("train", "popularity", "--data", grid, "--out", out, "--device", "cpu", *more)


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"warmstart {__version__}\n"


def test_heavy_libraries_wait_for_the_command_that_needs_them() -> None:
    """`--help` has to be there at once."""
    code = (
        "import sys; from app.commands import checkpoints, datasets, train;"
        "print([name for name in ('torch', 'polars', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_training_leaves_a_checkpoint_that_loads(grid: Path, tmp_path: Path) -> None:
    """Its name is domain, recommender, date and digest; path and metrics are printed; nothing else is left."""
    result = train(grid, tmp_path / "out", "--set", "reg=2.5", "--seed", 4)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").iterdir()
    loaded = load(path)
    assert re.fullmatch(rf"movies-popularity-\d{{4}}-\d\d-\d\d-{loaded.digest[:8]}", path.name)
    assert (loaded.card.config, loaded.card.seed, loaded.card.code_version) == ({"reg": 2.5}, 4, __version__)
    assert str(path) in result.stdout
    assert f"{loaded.card.metrics['rmse']:.4f}" in result.stdout


def test_several_domains_are_named_by_their_data_set(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "d")
    assert run("train", "popularity", "--data", folder, "--out", tmp_path / "out").exit_code == 0
    (path,) = (tmp_path / "out").iterdir()
    assert path.name.startswith("films-and-books-popularity-")


def test_a_checkpoint_may_be_named(grid: Path, tmp_path: Path) -> None:
    assert train(grid, tmp_path, "--name", "mine").exit_code == 0
    assert read_card(tmp_path / "mine")[0].recommender == "popularity"
    again = ("train", "popularity", "--data", grid, "--out", tmp_path, "--name")
    assert "never overwritten" in refused(*again, "mine")
    for name in ("../elsewhere", ".hidden", "", "a/b"):
        assert "cannot name a checkpoint" in refused(*again, name)


def test_bad_training_orders_are_one_sentence(grid: Path, tmp_path: Path) -> None:
    """Each says what would have been right, before any data is read."""
    to = ("--data", grid, "--out", tmp_path)
    unknown = refused("train", "oracle", *to)
    assert all(name in unknown for name in RECOMMENDERS)
    assert "no setting 'regg'; its settings are reg" in refused("train", "popularity", *to, "--set", "regg=1")
    assert "greater than or equal to 0" in refused("train", "popularity", *to, "--set", "reg=-1")
    assert "key=value" in refused("train", "popularity", *to, "--set", "reg")
    assert list(tmp_path.iterdir()) == []


def test_bad_data_is_one_sentence(tmp_path: Path) -> None:
    bad = write_files(tmp_path / "bad", users="user_id,age\nann,old\n")
    sentence = "users.csv, line 2: age is not a number ('old')"
    assert sentence in refused("train", "popularity", "--data", bad, "--out", tmp_path / "out")
    assert sentence in refused("datasets", "check", bad)
    assert "not a data set folder" in refused("datasets", "check", tmp_path / "nowhere")
    empty = write_files(tmp_path / "empty", interactions="user_id,domain,item_id,value\n")
    assert "nothing to learn from" in refused("train", "popularity", "--data", empty, "--out", tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(grid: Path, tmp_path: Path) -> None:
    assert "no CUDA device" in refused("train", "popularity", "--data", grid, "--out", tmp_path, "--device", "cuda")


def test_datasets_check_counts(grid: Path, tmp_path: Path) -> None:
    """30 users, 12 items, three quarters of the pairs."""
    result = run("datasets", "check", grid)
    assert result.exit_code == 0
    assert re.search(r"movies +1-5 +30 +12 +270 +270 +\d\.\d{3} +75\.00% +100% +100%", result.stdout)
    two = run("datasets", "check", write_files(tmp_path / "d")).stdout
    assert re.search(r"users in films and books +2\n", re.sub(" +\n", "\n", two))


def test_an_unknown_public_set_is_refused(tmp_path: Path) -> None:
    sentence = refused("datasets", "fetch", "movielens-1k", "--out", tmp_path / "d")
    assert "movielens-100k-domains" in sentence
    assert "one domain" in refused(
        "datasets", "fetch", "movielens-100k", "--out", tmp_path / "d", "--hidden-share", 0.5
    )


def test_fetching_what_is_there_already(tmp_path: Path) -> None:
    """No source is asked: the folder with the right name is taken as it stands."""
    toml = (write_files(tmp_path / "d") / "dataset.toml").read_text()
    (tmp_path / "d" / "dataset.toml").write_text(toml.replace("films and books", "movielens-100k"))
    result = run("datasets", "fetch", "movielens-100k", "--out", tmp_path / "d")
    assert (result.exit_code, result.stdout) == (0, f"movielens-100k is in {tmp_path / 'd'}\n")


def test_checkpoints_are_listed_shown_and_verified(grid: Path, tmp_path: Path) -> None:
    train(grid, tmp_path, "--name", "first")
    train(grid, tmp_path, "--name", "second", "--set", "reg=1")
    (tmp_path / "notes").mkdir()
    listed = run("checkpoints", "list", tmp_path)
    assert listed.exit_code == 0
    assert listed.stdout.index("first") < listed.stdout.index("second")
    assert "notes" in listed.stderr
    shown = run("checkpoints", "show", tmp_path / "second").stdout
    assert read_card(tmp_path / "second")[1] in shown
    assert re.search(r"set reg +1\.0", shown)
    (tmp_path / "notes").rmdir()
    verified = run("checkpoints", "verify", tmp_path)
    assert verified.exit_code == 0
    assert verified.stdout.count(": good, ") == 2


def test_a_harmed_checkpoint_is_named(grid: Path, tmp_path: Path) -> None:
    """The others are verified all the same."""
    train(grid, tmp_path, "--name", "good")
    train(grid, tmp_path, "--name", "harmed")
    (tmp_path / "harmed" / "weights.safetensors").write_bytes(b"")
    result = run("checkpoints", "verify", tmp_path)
    assert result.exit_code == 2
    assert "good: good" in result.stdout
    assert result.stderr.startswith("harmed: checkpoint-digest-mismatch: ")
    assert run("checkpoints", "verify", tmp_path / "harmed").exit_code == 2
    assert run("checkpoints", "verify", tmp_path / "good").exit_code == 0


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    assert "not a checkpoint folder" in refused("checkpoints", "show", tmp_path / "nowhere")
    assert "is no folder" in refused("checkpoints", "list", tmp_path / "nowhere")


def test_keys_are_made_listed_and_revoked(database_url: str) -> None:
    """The key is all that is printed of it, once; the list has what it is for and how it stands."""
    at = ("--database-url", database_url)
    assert "this machine only" in run("keys", "list", *at).stdout
    made = run("keys", "create", "--name", "shop", "--scope", "read", "--scope", "ingest", "--days", 30, *at)
    key = made.stdout.removesuffix("\n")
    key_id = key_id_of(key)
    assert re.fullmatch(r"wsk_[0-9a-f]{16}_[\w-]{43}", key)
    assert key_id is not None
    assert key_id in made.stderr
    assert key not in made.stderr
    listed = run("keys", "list", *at).stdout
    assert re.search(rf"{key_id} +shop +read, ingest +.*in use", listed)
    assert key not in listed
    assert run("keys", "revoke", key_id, *at).exit_code == 0
    assert re.search(rf"{key_id} .*revoked", run("keys", "list", *at).stdout)
    assert "no key" in refused("keys", "revoke", key_id, *at)


def test_serving_others_takes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is loaded; not the address, but that nobody asks for a key, is what is wrong."""
    monkeypatch.setenv("WARMSTART_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WARMSTART_HOST", "0.0.0.0")
    assert "warmstart keys create" in refused("serve")
