"""Pictures of items, read once and kept as thumbnails.

A thumbnail is a `data:` URI of a PNG of `SIZE` x `SIZE` pixels, three kilobytes or so of text. It stands in the raw
attributes of its item, so that it goes wherever they go: into a checkpoint, into storage, over HTTP, into an export.
"""

import base64
import binascii
import io
import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 32
"""Pixels of a thumbnail, either way; the picture's own proportions are not kept."""
MAX_PIXELS = 64_000_000
"""Of a picture that is read from a file: more than any camera's."""
FORMATS = ("PNG", "JPEG")
_URI = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/]+={0,2})")


class PictureError(Exception):
    """What was given is no picture that can be read. The message says what it must be."""


def thumbnail(content: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """The thumbnail of a PNG or JPEG file; transparent parts are white. Raises PictureError."""
    file = io.BytesIO()
    _read(content, max_pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def content_of(uri: str) -> bytes:
    """The file in a `data:` URI. Raises PictureError."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise PictureError("must be a data URI that begins with data:image/png;base64, or data:image/jpeg;base64,")
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error as error:
        raise PictureError("must be valid base64 behind the comma") from error


def pixels(thumbnails: Sequence[str | None]) -> Tensor:
    """(n, 3, SIZE, SIZE) uint8; zeros where there is none, or none that can be read.

    >>> red = io.BytesIO()
    >>> Image.new("RGB", (2, 3), "red").save(red, "PNG")
    >>> pixels([thumbnail(red.getvalue()), None])[:, :, 0, 0].tolist()
    [[255, 0, 0], [0, 0, 0]]
    """
    out = torch.zeros(len(thumbnails), 3, SIZE, SIZE, dtype=torch.uint8)
    for row, uri in zip(out, thumbnails, strict=True):
        if uri is None:
            continue
        try:
            # What is stored may be no thumbnail: nobody has checked attributes that were not declared.
            row.copy_(torch.from_numpy(np.array(_read(content_of(uri), MAX_PIXELS))).permute(2, 0, 1))
        except PictureError:
            continue
    return out


def _read(content: bytes, max_pixels: int) -> Image.Image:
    """The picture in `SIZE` x `SIZE` opaque pixels; one that has them already stays as it is."""
    try:
        # The header is all that `open` reads: nothing is unpacked before its size is known to be reasonable.
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise PictureError(f"must be a picture of at most {max_pixels:,} pixels")
            image.draft("RGB", (4 * SIZE, 4 * SIZE))  # a JPEG is decoded at a fraction of its size
            small = image.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.BOX)
    except PictureError:
        raise
    except Exception as error:  # damaged files make decoders fail in every way that there is
        raise PictureError("must be a PNG or JPEG picture that is not damaged") from error
    return Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
