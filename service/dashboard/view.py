"""What a view of the dashboard is made of: facts, figures and tables, for a page or for a file."""

import csv
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

Kind = Literal["text", "number", "count", "share", "time", "document", "owner", "passage"]

_ARROW: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "share": pa.float64(),
    "count": pa.int64(),
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: In files.
        title: For people.
        kind: What its values are; ``document`` and ``owner`` lead to a page of their own.
    """

    name: str
    title: str
    kind: Kind


@dataclass(frozen=True)
class Table:
    """Rows, in the order in which they matter.

    Attributes:
        name: In addresses and file names.
        title: For people.
        says: What it shows, in a sentence.
        columns: Its columns.
        rows: A value for each column; None: there is none.
    """

    name: str
    title: str
    says: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]

    def to_csv(self) -> bytes:
        """Numbers in their shortest exact digits, so that reading them again gives the same."""
        content = StringIO()
        writer = csv.writer(content, lineterminator="\n")
        writer.writerow([column.name for column in self.columns])
        writer.writerows(self.rows)
        return content.getvalue().encode()

    def to_parquet(self) -> bytes:
        """Typed columns."""
        arrays = [
            pa.array([row[place] for row in self.rows], _ARROW.get(column.kind, pa.string()))
            for place, column in enumerate(self.columns)
        ]
        content = BytesIO()
        pq.write_table(pa.table(arrays, [column.name for column in self.columns]), content)
        return content.getvalue()

    def as_json(self, *, most: int) -> dict[str, Any]:
        """At most so many rows, and how many there are."""
        return {
            "name": self.name,
            "title": self.title,
            "says": self.says,
            "columns": [vars(column) for column in self.columns],
            "rows": [list(row) for row in self.rows[:most]],
            "total": len(self.rows),
        }


@dataclass(frozen=True)
class Figure:
    """A figure of Plotly as JSON, what it is called, and what it says to who does not see it."""

    name: str
    title: str
    says: str
    plot: dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """One number with its name and its meaning in a sentence."""

    title: str
    value: float | int | str | None
    kind: Kind
    says: str


@dataclass(frozen=True)
class View:
    """A page of the dashboard.

    Attributes:
        title: Its name.
        says: What it answers.
        facts: Numbers to begin with.
        figures: Figures.
        tables: Tables.
        text: A text to read, such as that of a document.
        missing: Why a part of it is not there.
    """

    title: str
    says: str
    facts: tuple[Fact, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str | None = None
    missing: tuple[str, ...] = ()

    def as_json(self, *, most_rows: int) -> dict[str, Any]:
        """For a page."""
        return {
            "title": self.title,
            "says": self.says,
            "facts": [vars(fact) for fact in self.facts],
            "figures": [vars(figure) for figure in self.figures],
            "tables": [table.as_json(most=most_rows) for table in self.tables],
            "text": self.text,
            "missing": list(self.missing),
        }
