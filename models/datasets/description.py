"""`dataset.toml`: what a data set folder says about itself."""

import json
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.datasets.schema import AttributeKind, Domain, Kind

FILE = "dataset.toml"
RESERVED = {"user_id", "domain", "item_id", "title", "same_as"}
"""Columns of users.csv and items.csv that are no attributes."""


class DatasetError(Exception):
    """A data set folder that cannot be read: which file, which line (the header is line 1), and why."""

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        place = file if line is None else f"{file}, {'row' if file.endswith('.parquet') else 'line'} {line}"
        super().__init__(f"{place}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class DomainDescription(BaseModel):
    """`[domains.<name>]`: the scale, what kinds of events are worth, the attributes of the items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rating_min: float = Field(allow_inf_nan=False)
    rating_max: float = Field(allow_inf_nan=False)
    kinds: dict[str, Kind] = {}
    item_attributes: dict[str, AttributeKind] = {}


class Description(BaseModel):
    """All of `dataset.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    source: str = ""
    """Where the data came from, for people."""
    domains: dict[str, DomainDescription] = Field(min_length=1)
    user_attributes: dict[str, AttributeKind] = {}

    @model_validator(mode="after")
    def _names_are_usable(self) -> "Description":
        for name, domain in self.domains.items():
            if not name.strip() or "/" in name:
                raise ValueError(f"{name!r} cannot name a domain: it is blank or has a slash")
            if not domain.rating_min < domain.rating_max:
                raise ValueError(f"in domain {name!r} rating_min is not below rating_max")
            for kind, worth in domain.kinds.items():
                if kind == "rating":
                    raise ValueError("the kind 'rating' is its own value and takes no worth")
                if not domain.rating_min <= worth.value <= domain.rating_max:
                    raise ValueError(f"in domain {name!r} the kind {kind!r} has a value outside the rating scale")
        for attributes in (self.user_attributes, self.item_attributes):
            for attribute in attributes:
                if not attribute.strip() or attribute in RESERVED:
                    raise ValueError(f"{attribute!r} cannot name an attribute")
        if "image" in self.user_attributes.values():
            raise ValueError("only items have attributes of the kind 'image'")
        return self

    @property
    def item_attributes(self) -> dict[str, AttributeKind]:
        """The item attributes of all domains. Raises ValueError where two domains disagree on what one is."""
        merged: dict[str, AttributeKind] = {}
        for domain in self.domains.values():
            for name, kind in domain.item_attributes.items():
                if merged.setdefault(name, kind) != kind:
                    raise ValueError(
                        f"the item attribute {name!r} is {merged[name]!r} in one domain and {kind!r} in another"
                    )
        return merged

    @property
    def kinds(self) -> list[str]:
        """Kinds of interactions of all domains, `rating` first."""
        return list(dict.fromkeys(["rating", *(kind for domain in self.domains.values() for kind in domain.kinds)]))

    def schema_domains(self) -> list[Domain]:
        """The domains as recommenders know them."""
        return [
            Domain(name=name, rating_min=d.rating_min, rating_max=d.rating_max, kinds=d.kinds)
            for name, d in self.domains.items()
        ]


def read_description(folder: Path) -> Description:
    """Read `dataset.toml`. Raises DatasetError."""
    try:
        content = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(FILE, None, f"{folder} has none, so it is not a data set folder") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DatasetError(FILE, None, str(error)) from error
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DatasetError(FILE, None, f"{where}: {first['msg']}" if where else first["msg"]) from error


def format_description(description: Description) -> str:
    """The text of `dataset.toml`.

    >>> films = DomainDescription(rating_min=1, rating_max=5)
    >>> print(format_description(Description(name="tiny", domains={"m": films})))
    name = "tiny"
    <BLANKLINE>
    [domains."m"]
    rating_min = 1.0
    rating_max = 5.0
    <BLANKLINE>
    """
    lines = [f"name = {_quoted(description.name)}"]
    if description.source:
        lines.append(f"source = {_quoted(description.source)}")
    if description.user_attributes:
        lines += ["", "[user_attributes]", *_attributes(description.user_attributes)]
    for name, domain in description.domains.items():
        table = f"domains.{_quoted(name)}"
        lines += ["", f"[{table}]", f"rating_min = {domain.rating_min!r}", f"rating_max = {domain.rating_max!r}"]
        if domain.kinds:
            lines += ["", f"[{table}.kinds]"]
            for kind, worth in domain.kinds.items():
                fields = ", ".join(f"{field} = {value!r}" for field, value in worth.model_dump().items())
                lines.append(f"{_quoted(kind)} = {{ {fields} }}")
        if domain.item_attributes:
            lines += ["", f"[{table}.item_attributes]", *_attributes(domain.item_attributes)]
    return "\n".join(lines) + "\n"


def _attributes(kinds: dict[str, AttributeKind]) -> list[str]:
    return [f"{_quoted(name)} = {_quoted(kind)}" for name, kind in kinds.items()]


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's too, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
