"""The engine's memory: a catalogue that is followed, and item tables that follow it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engine.catalogue import Catalogue, CatalogueItem, Shelf
from app.engine.fallback import Described
from app.engine.runtime import Runtime
from app.engine.serving import Part, Served
from models import checkpoint
from models.datasets.schema import Domain
from tests.laws.world import DOMAINS, World

FILMS, BOOKS = DOMAINS


def item(key: int, domain: str = "films", item_id: str | None = None, **changes: object) -> CatalogueItem:
    return replace(CatalogueItem(key, domain, item_id or f"i{key}", f"I {key}", {}, True), **changes)


# catalogue


def test_positions_never_change() -> None:
    """Items come, change and go; each stays where it was first put, and shelves list theirs in that order."""
    first, at = Catalogue().followed(1, [FILMS, BOOKS], [item(10), item(11, "books"), item(12)])
    assert at == [0, 1, 2]
    gone = item(10, available=False, deleted=True)
    second, at = first.followed(2, [FILMS, BOOKS], [gone, item(13), item(12, title="changed"), item(9, "books")])
    assert at == [0, 3, 2, 4]
    assert [i.key for i in second.items] == [10, 11, 12, 13, 9]
    assert second.items[2].title == "changed"
    assert second.position_of == {10: 0, 11: 1, 12: 2, 13: 3, 9: 4}
    films, books = second.shelves["films"], second.shelves["books"]
    assert films.positions.tolist() == [0, 2, 3]
    assert books.positions.tolist() == [1, 4]
    assert films.local_of == {"i12": 1, "i13": 2}
    assert films.unavailable.tolist() == [0]
    assert second.local.tolist() == [0, 0, 1, 2, 1]
    assert [second.shelf_of[p] for p in range(5)] == [
        films.number,
        books.number,
        films.number,
        films.number,
        books.number,
    ]
    assert [i.title for i in first.items] == ["I 10", "I 11", "I 12"]
    assert first.revision == 1


def test_a_domain_may_come_later() -> None:
    one, _ = Catalogue().followed(1, [FILMS], [item(1)])
    two, at = one.followed(2, [FILMS, BOOKS], [])
    assert at == []
    assert two.shelves["books"].items == []
    assert two.shelves["films"].local_of == {"i1": 0}


def test_where_finds_items_by_any_value() -> None:
    rows = [{"tags": ["a", "b"], "year": 1999}, {"tags": ["b"], "year": 2000.0}, {"maker": "a"}, {"tags": []}]
    catalogue, _ = Catalogue().followed(1, [FILMS], [item(i, attributes=row) for i, row in enumerate(rows)])
    shelf = catalogue.shelves["films"]
    assert shelf.where("tags", ["a"]).tolist() == [0]
    assert shelf.where("tags", ["a", "b", "c"]).tolist() == [0, 1]
    assert shelf.where("year", ["1999"]).tolist() == [0]
    assert shelf.where("tags", ["never"]).tolist() == []
    assert shelf.where("never", ["a"]).tolist() == []


# item tables


@pytest.fixture(scope="module")
def content(trained: Path) -> Served:
    return Served.of("content", checkpoint.load(trained / "content"))


def world_items(world: World) -> list[CatalogueItem]:
    """The world's items with the checkpoint's ids, in an order of their own."""
    items = world.data.items
    return [
        item(100 + i, item_id=items.ids[i], title=items.titles[i], attributes=items.attributes[i])
        for i in reversed(range(len(items)))
    ]


def test_items_of_the_checkpoint_keep_their_learnt_rows(world: World, content: Served) -> None:
    """Whatever becomes of their attributes; items that training never saw touched follow theirs."""
    catalogue, every = Catalogue().followed(1, [FILMS], world_items(world))
    served = content.following(catalogue, every)
    assert len(served.table) == len(content.table)
    assert served.row_of.tolist() == list(reversed(range(80)))
    untouched = {0, 7}
    changed = [replace(i, attributes={"genres": ["genre5"], "year": 1990}) for i in catalogue.items]
    later, at = catalogue.followed(2, [FILMS], changed)
    after = served.following(later, at)
    moved = {
        row
        for row in range(80)
        if any(not torch.equal(after.table[name][row], served.table[name][row]) for name in served.table.columns)
    }
    assert moved <= untouched
    assert moved
    assert torch.equal(after.row_of, served.row_of)


def test_new_items_get_the_row_that_their_content_gives(world: World, content: Served) -> None:
    """The same whether they come one by one or together, before the checkpoint or after it."""
    base, every = Catalogue().followed(1, [FILMS], world_items(world))
    new = [item(1000 + i, attributes={"genres": [f"genre{i}"], "year": 2000 + i}) for i in range(3)]
    together, at = base.followed(2, [FILMS], new)
    at_once = content.following(base, every).following(together, at)
    catalogue, step = base, content.following(base, every)
    for i, one in enumerate(new):
        catalogue, at = catalogue.followed(2 + i, [FILMS], [one])
        step = step.following(catalogue, at)
    from_nothing = content.following(together, range(len(together.items)))
    for served in (step, from_nothing):
        assert torch.equal(served.row_of, at_once.row_of)
        for name in served.table.columns:
            torch.testing.assert_close(served.table[name], at_once.table[name])
    assert len(at_once.table) == 83
    assert at_once.row_of[-3:].tolist() == [80, 81, 82]
    assert not at_once.table.trained[80:].any()


def test_a_new_item_that_changes_gets_a_new_row_in_its_place(world: World, content: Served) -> None:
    base, _ = Catalogue().followed(1, [FILMS], [*world_items(world), item(1000, attributes={"genres": ["genre0"]})])
    before = content.following(base, range(len(base.items)))
    later, at = base.followed(2, [FILMS], [item(1000, attributes={"genres": ["genre3"]})])
    after = before.following(later, at)
    assert len(after.table) == len(before.table) == 81
    assert any(not torch.equal(after.table[name][80], before.table[name][80]) for name in after.table.columns)
    assert all(torch.equal(after.table[name][:80], before.table[name][:80]) for name in after.table.columns)


def test_items_of_other_domains_have_no_row(world: World, content: Served) -> None:
    catalogue, every = Catalogue().followed(
        1, [BOOKS, FILMS], [item(1, "books"), *world_items(world), item(2, "books")]
    )
    served = content.following(catalogue, every)
    assert (served.row_of[0], served.row_of[-1]) == (-1, -1)
    assert len(served.table) == 80
    part = Part.of("content", served, catalogue.shelves["films"])
    assert part.rows is not None
    assert part.rows.tolist() == list(reversed(range(80)))


def test_an_empty_runtime_has_no_domains(tmp_path: Path) -> None:
    made = Runtime(tmp_path, torch.device("cpu"))
    made.warm_up()
    assert made.now.domains == {}
    made.follow(1, [Domain(name="empty")], [])
    made.warm_up()
    assert made.now.domains["empty"].fallback


def test_the_fallback_follows_a_shelf_as_if_it_were_described_anew() -> None:
    drama, both = {"genres": ["drama"]}, {"genres": ["drama", "war"], "year": 1942}
    steps = [
        [item(1, attributes=drama), item(2, attributes=drama), item(3, attributes=both), item(4, attributes=both)],
        [item(5, attributes={})],  # nothing is known of it
        [item(1, attributes={"genres": "war"})],  # another of what is known
        [item(6, attributes={"genres": ["war"]}), item(2, attributes=both)],
    ]
    relearnt = [
        [item(6, attributes={"genres": ["new"]}), item(7, attributes={"genres": ["new"]})],  # a value more
        [item(i, attributes={"genres": ["drama"]}) for i in range(1, 7)],  # values less
    ]
    catalogue, described = Catalogue(), Described.of(Shelf(FILMS, 0, [], np.empty(0, np.int64)))
    for number, changed in enumerate(steps + relearnt):
        catalogue, _ = catalogue.followed(number, [FILMS], changed)
        before, described = described, described.following(catalogue.shelves["films"])
        anew = Described.of(catalogue.shelves["films"])
        assert (described.recommender is before.recommender) == (number in (1, 2, 3))
        alike, expected = (made.table["features"] @ made.table["features"].T for made in (described, anew))
        assert torch.allclose(alike, expected)
        assert len(described.table) == len(catalogue.items)


def test_the_fallback_describes_a_shelf_anew_when_its_scale_changes() -> None:
    catalogue, _ = Catalogue().followed(1, [FILMS], [item(1), item(2)])
    described = Described.of(catalogue.shelves["films"])
    wider = FILMS.model_copy(update={"rating_max": 10.0})
    later, _ = catalogue.followed(2, [wider], [])
    assert described.following(later.shelves["films"]).recommender.schema.domains == [wider]


def test_the_fallback_describes_an_older_state_of_a_shelf_too() -> None:
    """A candidate is tried on the catalogue that was there when its trial began."""
    older, _ = Catalogue().followed(1, [FILMS], [item(i, attributes={"genres": ["drama"]}) for i in (1, 2)])
    later, _ = older.followed(2, [FILMS], [item(3, attributes={"genres": ["drama"]})])
    described = Described.of(later.shelves["films"]).following(older.shelves["films"])
    assert len(described.table) == 2
    assert len(described.following(later.shelves["films"]).table) == 3
