"""Import and export: an installation as a folder, a folder as an installation."""

from pathlib import Path

import pytest

from app.services.exchange import ExchangeError, export, import_folder
from app.storage import item_events, revisions
from app.storage.database import Database
from models.checkpoint import LearntThrough
from models.datasets import folder

DATASET = """name = "shop"
[user_attributes]
age = "numeric"
tags = "multi"
[domains.books]
rating_min = 1
rating_max = 10
[domains.books.kinds]
click = { value = 7, weight = 0.2, reward = 0.3 }
[domains.books.item_attributes]
author = "categorical"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    (path / "dataset.toml").write_text(DATASET)
    (path / "interactions.csv").write_text(
        "user_id,domain,item_id,value,occurred_at,kind,dwell_seconds,device,location\n"
        "ada,books,emma,9,100,,,,\n"
        "ada,books,emma,4,200,rating,,,\n"
        "ada,books,walden,,150,click,12.5,phone,\n"
        "günther,books,walden,3,,,,,\n"
    )
    (path / "users.csv").write_text("user_id,age,tags\nada,34,a|b\n")
    (path / "items.csv").write_text("domain,item_id,title,author\nbooks,emma,Emma,Jane Austen\n")
    return path


async def test_import_then_export_keeps_everything(database: Database, shop: Path, tmp_path: Path) -> None:
    moved = await import_folder(database, shop)
    assert (moved.users, moved.items, moved.interactions, moved.already_there) == (2, 2, 4, 0)
    exported = await export(database, tmp_path / "out")
    async with database.read() as connection:
        newest = await item_events.last_key(connection)
        number = await revisions.installation_id(connection)
    assert exported.through == LearntThrough(installation=number, key=newest)
    before, after = folder.read(shop), folder.read(tmp_path / "out")
    assert before.user_ids == after.user_ids
    assert before.items.attributes == after.items.attributes
    assert before.interactions.values.tolist() == after.interactions.values.tolist()
    assert folder.user_rows(tmp_path / "out") == folder.user_rows(shop) | {"günther": {}}
    assert folder.event_rows(tmp_path / "out")["dwell_seconds"].to_list().count(12.5) == 1


async def test_an_import_run_again_stores_nothing_twice(database: Database, shop: Path) -> None:
    await import_folder(database, shop)
    again = await import_folder(database, shop)
    assert (again.interactions, again.already_there) == (0, 4)


async def test_a_bad_row_stops_the_import_before_anything_is_stored(database: Database, shop: Path) -> None:
    with (shop / "interactions.csv").open("a") as file:
        file.write("ada,books,emma,11,,,,,\n")
    with pytest.raises(folder.DatasetError, match=r"interactions.csv, line 6: .*scale"):
        await import_folder(database, shop)
    with pytest.raises(ExchangeError, match="nothing to export"):
        await export(database, shop / "out")


async def test_another_rating_scale_is_refused(database: Database, shop: Path) -> None:
    await import_folder(database, shop)
    text = (shop / "dataset.toml").read_text()
    (shop / "dataset.toml").write_text(text.replace("rating_max = 10", "rating_max = 12"))
    with pytest.raises(ExchangeError, match="another rating scale"):
        await import_folder(database, shop)
