"""Progress of long work on stderr: a bar with rate and time left, or lines without a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_S = 10.0  # without a terminal

Advance = Callable[[int], None]


class _RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class Reporter:
    """Says on stderr how far long work is.

    Args:
        console: Where to say it.
        name: Of one process among several, before every line.
    """

    def __init__(self, console: Console | None = None, *, name: str = "") -> None:
        self._console = console or Console(stderr=True)
        self._name = name

    def note(self, message: str) -> None:
        """One line that stays."""
        if self._name:
            message = f"{self._name}: {message}"
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str, *, total: int, unit: str) -> Iterator[Advance]:
        """A stretch of work of ``total`` units; yields a function to call with units done."""
        # Several bars on one terminal would write over each other.
        alone = self._console.is_terminal and not self._name
        track = self._bar if alone else self._lines
        with track(what, total, unit) as advance:
            yield advance

    @contextmanager
    def _bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(what, total=total, unit=unit)
            yield lambda units: progress.advance(task, units)

    @contextmanager
    def _lines(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        begun = last = time.monotonic()
        done = 0

        def line() -> None:
            seconds = max(time.monotonic() - begun, 1e-9)
            rate = done / seconds
            left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
            self.note(f"{what}: {done:,}/{total:,} {unit}, {rate:,.0f} {unit}/s{left}")

        def advance(units: int) -> None:
            nonlocal done, last
            done += units
            if time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                line()

        yield advance
        line()


class Silence(Reporter):
    """Says nothing; for tests and for callers with a display of their own."""

    def note(self, message: str) -> None:
        """Swallow the line."""

    @contextmanager
    def step(self, what: str, *, total: int, unit: str) -> Iterator[Advance]:
        """Swallow the progress."""
        yield lambda units: None
