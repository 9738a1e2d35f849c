"""Two data set folders as one."""

from pathlib import Path

import pytest

from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.datasets.join import join
from models.training.domains import Direction, overlapping_users
from tests.models.folders import write_files

GAMES = {
    "dataset": """
name = "games"

[domains.games]
rating_min = 1
rating_max = 3

[domains.games.item_attributes]
year = "categorical"

[user_attributes]
age = "numeric"
""",
    "interactions": "user_id,domain,item_id,value\nann,games,chess,3\neve,games,chess,1\n",
    "users": "user_id,age\nann,30\nbob,99\n",
    "items": "domain,item_id,year\ngames,chess,old\n",
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path / "first"), write_files(tmp_path / "second", **GAMES)


def test_a_joined_folder_has_the_domains_and_interactions_of_both(folders: tuple[Path, Path], tmp_path: Path) -> None:
    joined = join(*folders, tmp_path / "out")
    assert joined.fingerprint == read(tmp_path / "out").fingerprint
    assert [domain.name for domain in joined.schema.domains] == ["films", "books", "games"]
    assert len(joined.interactions) == sum(len(read(folder).interactions) for folder in folders)


def test_without_a_word_nobody_is_in_both(folders: tuple[Path, Path], tmp_path: Path) -> None:
    joined = join(*folders, tmp_path / "out")
    assert "ann@games" in joined.user_ids
    assert len(overlapping_users(joined, Direction(0, 2))) == 0


def test_one_id_can_be_one_person_whose_first_attributes_count(folders: tuple[Path, Path], tmp_path: Path) -> None:
    joined = join(*folders, tmp_path / "out", same_users=True)
    assert [joined.user_ids[user] for user in overlapping_users(joined, Direction(0, 2))] == ["ann"]
    ages = joined.schema.user_attributes.fields[0]
    column = joined.user_attributes[:, 0] * ages.std + ages.mean
    assert float(column[joined.user_ids.index("bob")]) == pytest.approx(40)
    assert float(column[joined.user_ids.index("ann")]) == pytest.approx(30)


def test_an_attribute_of_another_kind_gets_another_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    kinds = {field.name: field.kind for field in join(*folders, tmp_path / "out").schema.item_attributes.fields}
    assert (kinds["year"], kinds["year@games"]) == ("numeric", "categorical")


def test_domains_of_one_name_are_not_mixed_up(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="both data sets have a domain 'books'"):
        join(folders[0], folders[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
