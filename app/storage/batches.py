"""Many values in one statement, on both databases, with SQL that does not grow with their number.

Postgres takes arrays, which `unnest` turns into rows: no limit of 32,767 parameters, and one prepared statement for
batches of any size. SQLite takes a JSON array for looking up; its inserts go by VALUES, in portions that fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import orjson
from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    Dialect,
    Row,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

PORTION = 5_000
"""Rows of one insert; bounds the memory of a statement."""

Conflict = Callable[[Any], Any]
"""Adds the ON CONFLICT clause to an insert of either dialect, whose methods for that have the same names."""


class Values(TypeDecorator[Sequence[Any]]):
    """A parameter that is many values: an array for Postgres, a JSON array for SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(self.of))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return orjson.dumps(value).decode()


class _Among(FunctionElement[bool]):
    type = Boolean()
    name = "among"
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> Self:
        """As it stands: the `= 1` that SQLAlchemy adds on SQLite would keep SQLite from using the column's index."""
        return self


def among(column: ColumnElement[Any], parameter: str) -> ColumnElement[bool]:
    """Whether the column is one of the values of the named parameter, a list."""
    return _Among(column, bindparam(parameter, type_=Values(column.type)))


@compiles(_Among, "postgresql")
def _among_on_postgres(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **options)} = ANY ({compiler.process(values, **options)})"


@compiles(_Among, "sqlite")
def _among_on_sqlite(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    return (
        f"{compiler.process(column, **options)} IN (SELECT value FROM json_each({compiler.process(values, **options)}))"
    )


class Each(FunctionElement[Any]):
    """The values of the named parameter, a list, as a table to join: `.c.value`."""

    name = "each"
    inherit_cache = True

    def __init__(self, parameter: str, of: TypeEngine[Any]) -> None:
        super().__init__(bindparam(parameter, type_=Values(of)))
        self.of = of

    @classmethod
    def table(cls, parameter: str, of: TypeEngine[Any]) -> TableValuedAlias:
        """It, under the one name that makes its column `value` on both databases."""
        return cls(parameter, of).table_valued(column("value", of)).alias("value")


@compiles(Each, "postgresql")
def _each_on_postgres(element: Each, compiler: SQLCompiler, **options: Any) -> str:
    return f"unnest({compiler.process(element.clauses, **options)})"


@compiles(Each, "sqlite")
def _each_on_sqlite(element: Each, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


class BulkInsert:
    """An insert of many rows at once, prepared for both databases.

    Rows are inserted in the order given, so keys ascend with it.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[str],
        conflict: Conflict = lambda insert: insert,
        returning: Sequence[str] = (),
    ) -> None:
        self._columns = [table.c[name] for name in columns]
        returned = [table.c[name] for name in returning]
        given = select(*(_unnested(column.name, column.type) for column in self._columns))
        self._postgres = conflict(postgresql.insert(table).from_select(list(columns), given)).returning(*returned)
        self._sqlite = conflict(sqlite.insert(table)).returning(*returned)

    async def __call__(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> list[Row[Any]]:
        """Insert rows that have a value for each of the columns; what the statement returns."""
        out: list[Row[Any]] = []
        for portion in portions(rows):
            if connection.dialect.name == "postgresql":
                arrays = {column.name: self._array(column, portion) for column in self._columns}
                result = await connection.execute(self._postgres, arrays)
            else:
                result = await connection.execute(self._sqlite, list(portion))
            if result.returns_rows:
                out.extend(result.all())
        return out

    @staticmethod
    def _array(column: ColumnElement[Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        values = [row[column.name] for row in rows]
        if isinstance(column.type, JSON):
            return [None if value is None else orjson.dumps(value).decode() for value in values]
        return values


def portions(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The rows, no more than `PORTION` at a time."""
    for start in range(0, len(rows), PORTION):
        yield rows[start : start + PORTION]


def _unnested(name: str, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    if isinstance(type_, JSON):
        return cast(func.unnest(bindparam(name, type_=postgresql.ARRAY(Text()))), JSON())
    return func.unnest(bindparam(name, type_=postgresql.ARRAY(type_)))
