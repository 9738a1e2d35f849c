"""One file of a data set folder as columns of text, read strictly: what is wrong is named by file and line."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from models.datasets.description import DatasetError

ROW = "\x00row"
"""Index of each row in the file, blank lines not counted; a name that no column of a readable file has."""
PLAIN = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Datetime, pl.Null)
"""Types of columns, beside numbers, that a parquet file may have."""
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_799.0
"""Unix seconds of the years 1 and 9999; milliseconds of our time lie beyond."""
RFC3339 = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$"


@dataclass(frozen=True)
class Sheet:
    """The rows of a file; empty cells are null. Blank lines are left out."""

    path: Path
    frame: pl.DataFrame

    @classmethod
    def open(cls, path: Path, required: Collection[str], optional: Collection[str]) -> "Sheet":
        """Read a .csv or .parquet file. Raises DatasetError, also for a column that is in neither list."""
        try:
            frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
        except pl.exceptions.NoDataError as error:
            raise DatasetError(path.name, 1, "the file is empty; it needs a header") from error
        # A damaged parquet file can make polars panic, which is no PolarsError and not even an Exception.
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _unreadable(path, error) from error
        missing = [column for column in required if column not in frame.columns]
        if missing:
            raise DatasetError(path.name, 1, f"there is no column {missing[0]!r}")
        known = [*required, *optional]
        unknown = [column for column in frame.columns if column not in known]
        if unknown:
            raise DatasetError(path.name, 1, f"unknown column {unknown[0]!r}; known are {', '.join(known)}")
        for column, dtype in frame.schema.items():
            if not (dtype.is_numeric() or dtype in PLAIN):
                raise DatasetError(path.name, 1, f"{column} is a column of {dtype}, not of text, numbers or times")
        text = pl.selectors.string()
        frame = frame.with_columns(pl.when(text != "").then(text).name.keep())
        if path.suffix == ".csv" and frame.width:
            frame = frame.filter(pl.any_horizontal(pl.all().is_not_null()))
        sheet = cls(path, frame.with_row_index(ROW))
        for column in frame.select(text).columns:
            stored = ~frame[column].str.contains("\0", literal=True).fill_null(False)
            sheet.require(stored, f"{column} has a null character, which no database stores")
        return sheet

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def text(self, column: str) -> pl.Series:
        """A column as strings, null where empty; all null where the file does not have the column."""
        if column not in self:
            return pl.Series(column, [None] * len(self), dtype=pl.String)
        return self.frame[column].cast(pl.String)

    def identifiers(self, column: str) -> pl.Series:
        """A column of ids: opaque strings, never blank."""
        ids = self.text(column)
        self.require(ids.str.strip_chars().fill_null("") != "", f"{column} is empty")
        return ids

    def numbers(self, column: str) -> pl.Series:
        """A column of finite numbers, float64, null where empty."""
        if column not in self:
            return pl.Series(column, [None] * len(self), dtype=pl.Float64)
        cells = self.frame[column]
        try:
            numbers = cells.cast(pl.Float64, strict=False)
        except pl.exceptions.PolarsError as error:
            raise DatasetError(self.path.name, 1, f"{column} is not a column of numbers") from error
        self.require(cells.is_null() | numbers.is_finite().fill_null(False), f"{column} is not a number", column)
        return numbers

    def times(self, column: str) -> pl.Series:
        """A column of moments, Unix seconds or RFC 3339 in the file, as Unix seconds; null where empty."""
        if column not in self:
            return pl.Series(column, [None] * len(self), dtype=pl.Float64)
        cells = self.frame[column]
        if isinstance(cells.dtype, pl.Datetime):
            if cells.dtype.time_zone is None:
                raise DatasetError(self.path.name, 1, f"{column} has no time zone")
            return cells.dt.epoch("us").cast(pl.Float64) / 1e6
        seconds = cells.cast(pl.Float64, strict=False)
        if cells.dtype == pl.String and seconds.null_count() > cells.null_count():
            seconds = seconds.fill_null(_rfc3339(cells))
        in_range = (seconds >= EARLIEST) & (seconds <= LATEST)  # NaN is above every number
        self.require(
            cells.is_null() | in_range.fill_null(False),
            f"{column} is neither Unix seconds nor an RFC 3339 time",
            column,
        )
        return seconds

    def require(self, holds: pl.Series, reason: str, column: str | None = None) -> None:
        """Raise DatasetError for the first row of which something does not hold, with its cell in `column`."""
        if holds.all():
            return
        at = (~holds).arg_max()
        assert at is not None
        cell = "" if column is None else f" ({self.frame[column][at]!r})"
        raise DatasetError(self.path.name, self.line(at), reason + cell)

    def line(self, at: int) -> int:
        """The line in the file on which the row at position `at` begins (in a .parquet file: its number from 1)."""
        row = int(self.frame[ROW][at])
        return row + 1 if self.path.suffix == ".parquet" else _line_of(self.path, row)


def _rfc3339(cells: pl.Series) -> pl.Series:
    wellformed = pl.when(pl.col("cell").str.contains(RFC3339)).then(pl.col("cell").str.to_uppercase())
    spelt = wellformed.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    moment = spelt.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC")
    return cells.to_frame("cell").select(moment.dt.epoch("us").cast(pl.Float64) / 1e6).to_series()


def _line_of(path: Path, row: int) -> int:
    """Where a row begins; quoted cells may span lines and lines may be blank, so the file is read again up to there."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        begins = reader.line_num + 1
        for record in reader:
            if any(record):
                if row == 0:
                    return begins
                row -= 1
            begins = reader.line_num + 1
    raise IndexError(row)


def _unreadable(path: Path, error: Exception) -> DatasetError:
    """Find the line that a whole-file error is about, where that can be said."""
    if path.suffix == ".csv" and path.is_file():
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return DatasetError(path.name, number, "the line is not UTF-8 text")
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            width = len(next(reader, []))
            begins = reader.line_num + 1
            for record in reader:
                if len(record) > width:
                    return DatasetError(path.name, begins, f"{len(record)} cells, but the header has {width}")
                begins = reader.line_num + 1
    return DatasetError(path.name, None, f"cannot be read: {str(error).splitlines()[0]}")
