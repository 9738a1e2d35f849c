"""Pictures become thumbnails, wherever they come from; what is no picture is refused with a sentence."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import checkpoint
from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.datasets.images import SIZE, PictureError, content_of, pixels, thumbnail
from models.recommender import FitOptions
from models.recommenders.popularity import Popularity, PopularityConfig
from tests.models.folders import write_files

TOML = """
name = "posters"

[domains.films]
rating_min = 1
rating_max = 5

[domains.films.item_attributes]
poster = "image"
"""
EVENTS = "user_id,domain,item_id,value\nann,films,a,5\nbob,films,b,1\n"


def picture(colour: str | tuple[int, ...], kind: str = "PNG", size: tuple[int, int] = (60, 90)) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if isinstance(colour, tuple) else "RGB", size, colour).save(file, kind)
    return file.getvalue()


def posters(folder: Path, *cells: str) -> Path:
    """A folder whose films a, b, … have these cells as posters; `red.png` is a picture in it."""
    rows = "".join(f'films,{name},"{cell}"\n' for name, cell in zip("abcdef", cells, strict=False))
    write_files(folder, dataset=TOML, interactions=EVENTS, users=None, items=f"domain,item_id,poster\n{rows}")
    (folder / "art").mkdir()
    (folder / "art" / "red.png").write_bytes(picture("red"))
    (folder / "blue.jpg").write_bytes(picture("blue", "JPEG"))
    return folder


def test_a_thumbnail_has_the_picture_s_colours() -> None:
    """PNG to the bit, JPEG nearly; what can be seen through is white."""
    red, blue, glass = pixels(
        [
            thumbnail(picture("red")),
            thumbnail(picture("blue", "JPEG")),
            thumbnail(picture((0, 0, 0, 0))),
        ]
    )
    assert torch.equal(red, torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, SIZE, SIZE))
    assert (blue.float() - torch.tensor([0.0, 0, 255])[:, None, None]).abs().max() < 5
    assert (glass == 255).all()


def test_a_thumbnail_of_a_thumbnail_is_the_same() -> None:
    image = Image.effect_mandelbrot((70, 50), (-2, -1.5, 1, 1.5), 50)
    file = io.BytesIO()
    image.save(file, "PNG")
    once = thumbnail(file.getvalue())
    assert thumbnail(content_of(once)) == once
    assert len(once) < 6000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"GIF89a" + bytes(50), "PNG or JPEG"),
        (picture("red")[:-30], "damaged"),
        (picture("red", size=(3000, 20)), "at most 50,000 pixels"),
    ],
    ids=["empty", "of another kind", "cut off", "too large"],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        thumbnail(content, max_pixels=50_000)


@pytest.mark.parametrize(
    "uri",
    ["", "http://example.org/a.png", "data:text/html;base64,AAAA", "data:image/png;base64,AAA", "data:image/png,red"],
)
def test_what_is_no_data_uri_of_a_picture_is_refused(uri: str) -> None:
    with pytest.raises(PictureError):
        content_of(uri)


def test_a_folder_s_pictures_are_read(tmp_path: Path) -> None:
    """Paths and data URIs; an empty cell is zeros."""
    uri = "data:image/png;base64," + base64.b64encode(picture("lime")).decode()
    images = read(posters(tmp_path / "x", "art/red.png", "blue.jpg", "", uri)).items.content.images
    assert images is not None
    assert (images.dtype, images.shape) == (torch.uint8, (4, 3, SIZE, SIZE))
    assert images[0, :, 5, 5].tolist() == [255, 0, 0]
    assert images[1, 2, 5, 5] > 250
    assert not images[2].any()
    assert images[3, :, 5, 5].tolist() == [0, 255, 0]


def test_data_without_pictures_has_none_and_others_have_them_in_their_fingerprint(tmp_path: Path) -> None:
    """Other pixels, another fingerprint; and no tensor where the schema has no picture."""
    assert read(write_files(tmp_path / "plain")).items.content.images is None
    red, blue = (posters(tmp_path / name, cell) for name, cell in (("r", "art/red.png"), ("b", "blue.jpg")))
    assert read(red).fingerprint != read(blue).fingerprint


def outside(folder: Path) -> str:
    (folder.parent / "secret.png").write_bytes(picture("red"))
    return "../secret.png"


def absolute(folder: Path) -> str:
    outside(folder)
    return str(folder.parent / "secret.png")


def link(folder: Path) -> str:
    (folder / "link.png").symlink_to(folder.parent / outside(folder).removeprefix("../"))
    return "link.png"


def damaged(folder: Path) -> str:
    (folder / "bad.png").write_bytes(picture("red")[:40])
    return "bad.png"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (outside, "inside the folder"),
        (absolute, "inside the folder"),
        (link, "inside the folder"),
        (lambda _: "missing.png", "can be read"),
        (lambda _: "art", "can be read"),
        (damaged, "not damaged"),
        (lambda _: "data:image/png;base64,AAAA", "not damaged"),
    ],
    ids=["outside", "absolute", "link", "missing", "folder", "damaged", "uri"],
)
def test_a_cell_that_names_no_picture_of_the_folder_is_an_error_with_its_line(
    tmp_path: Path, cell: Callable[[Path], str], reason: str
) -> None:
    folder = posters(tmp_path / "x", "art/red.png", "")
    with (folder / "items.csv").open("a") as file:
        file.write(f'films,c,"{cell(folder)}"\n')
    with pytest.raises(DatasetError, match=rf"items.csv, line 4: poster .*{reason}"):
        read(folder)


def test_a_person_has_no_picture(tmp_path: Path) -> None:
    toml = TOML + '[user_attributes]\nface = "image"\n'
    with pytest.raises(DatasetError, match="only items"):
        read(write_files(tmp_path / "x", dataset=toml, interactions=EVENTS, users=None, items=None))


def test_a_checkpoint_s_items_carry_their_pictures(tmp_path: Path) -> None:
    """Without the folder that they were read from."""
    data = read(posters(tmp_path / "x", "art/red.png", "blue.jpg"))
    recommender = Popularity(PopularityConfig(), data.schema)
    fitted = recommender.fit(data, FitOptions())
    path = checkpoint.save(
        tmp_path / "saved", recommender, fitted, data, metrics={}, seed=0, fit_seconds=0, code_version="0"
    )
    card, items = checkpoint.read_items(path)
    images = card.schema_.item_attributes.images([item.attributes for item in items])
    assert images is not None
    assert data.items.content.images is not None
    assert torch.equal(images, data.items.content.images)


def test_an_attribute_that_is_no_picture_says_nothing() -> None:
    """Attributes that nobody had declared may be anything; they must not stop a catalogue from being served."""
    assert not pixels(["red.png", "data:image/png;base64,AAAA", None]).any()
