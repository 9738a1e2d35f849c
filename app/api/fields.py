"""Field types of requests: what an id, a time and an attribute may be."""

import math
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from app.services.stock import MAX_TEXT

MAX_ID = 128
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC).timestamp()


class Body(BaseModel):
    """A request body: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


def _clean_id(value: str) -> str:
    if value.isascii():
        if value.isprintable() and not value.isspace():
            return value
        raise ValueError("must not be blank and must not have control characters")
    if not value.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cn") or c in BIDI_CONTROLS for c in value):
        raise ValueError("must not have control characters")
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError("must be in Unicode normalisation form NFC")
    return value


BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's property Bidi_Control: characters that turn the direction of the text around them and show nothing.
Letters that run right to left are welcome."""

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID), AfterValidator(_clean_id)]
"""An opaque id: 1 to 128 characters, NFC, no control characters; emoji and right-to-left letters are fine."""


def _to_unix_seconds(value: Any) -> Any:
    """Unix seconds from a number or an RFC 3339 time with an offset."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be Unix seconds or an RFC 3339 time") from None
        if parsed.tzinfo is None:
            raise ValueError("must say its offset from UTC, such as Z or +02:00")
        try:
            value = parsed.timestamp()
        except (OverflowError, ValueError):
            raise ValueError("must be a time since 1970") from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or not EARLIEST <= value < 1e11:
            raise ValueError("must be a time since 1970, in seconds")
        return float(value)
    raise ValueError("must be Unix seconds or an RFC 3339 time")


Time = Annotated[
    float,
    BeforeValidator(_to_unix_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": 1e11},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]
"""A moment: Unix seconds, or RFC 3339 with an offset."""

MAX_PICTURE = 400_000
"""Characters of a picture's data URI, which has four for every three bytes."""
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Picture = Annotated[str, Field(max_length=MAX_PICTURE, pattern="^data:image/")]
AttributeName = Annotated[str, Field(min_length=1, max_length=64)]


def _one_reason(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:  # which has an entry for each thing that the value might have been
        raise ValueError(
            "the value of an attribute must be a finite number, a string of at most 20,000 characters, an array of at "
            "most 200 strings of at most 500 characters, or null; a picture of an item is a data URI of at most "
            "400,000 characters"
        ) from None


Strings = Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=200)]
AttributeValue = Annotated[FiniteFloat | Text | Strings | None, WrapValidator(_one_reason)]
ItemAttributeValue = Annotated[FiniteFloat | Text | Picture | Strings | None, WrapValidator(_one_reason)]
Attributes = Annotated[dict[AttributeName, AttributeValue], Field(max_length=64)]
"""What is known of a user beside interactions: numbers, strings, lists of strings."""
ItemAttributes = Annotated[dict[AttributeName, ItemAttributeValue], Field(max_length=64)]
"""What is known of an item beside interactions: numbers, strings, lists of strings, pictures."""
