"""Periods: a month ``2026-10``, a year ``2026``, or days ``2026-10-01..2026-10-15``; UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from influence.errors import InvalidInput


@dataclass(frozen=True)
class Period:
    """``start_us <= time < end_us``, microseconds since 1970 (UTC)."""

    name: str
    start_us: int
    end_us: int


def parse_period(name: str) -> Period:
    """The period of a name; the last day of ``A..B`` belongs to it.

    Raises:
        InvalidInput: It is none.
    """
    try:
        first, after = _days(name)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{name!r} is no period. Give a month as 2026-10, a year as 2026, or days as "
            "2026-10-01..2026-10-15."
        ) from error
    return Period(name, _microseconds(first), _microseconds(after))


def _days(name: str) -> tuple[date, date]:
    """Its first day, and the day after its last."""
    if re.fullmatch(r"\d{4}", name):
        return date(int(name), 1, 1), date(int(name) + 1, 1, 1)
    if re.fullmatch(r"\d{4}-\d{2}", name):
        year, month = int(name[:4]), int(name[5:])
        return date(year, month, 1), date(year + month // 12, month % 12 + 1, 1)
    first, separator, last = name.partition("..")
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    if not separator or end < begin:
        raise ValueError(name)
    return begin, end + timedelta(days=1)


def _microseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
