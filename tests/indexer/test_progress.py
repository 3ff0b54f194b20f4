import io
import re

import pytest
from rich.console import Console

from indexer import progress
from indexer.progress import Reporter, Silence


def _reporter(*, terminal: bool) -> tuple[Reporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=140, color_system=None)
    return Reporter(console), stream


def test_without_a_terminal_there_are_lines_with_rate_and_time_left(monkeypatch):
    now = iter([0.0, 4.0, 12.0, 12.0, 20.0])  # begin, two advances (a line: two readings), end
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    reporter, stream = _reporter(terminal=False)
    with reporter.step("Logging", total=2000, unit="tokens") as advance:
        advance(500)
        assert stream.getvalue() == ""  # too soon for a line
        now = iter([12.0, 12.0, 12.0, 20.0])
        advance(700)
        assert stream.getvalue() == "Logging: 1,200/2,000 tokens, 100 tokens/s, 8 s left\n"
        advance_last = advance
        now = iter([15.0, 20.0])
        advance_last(800)
    last = stream.getvalue().splitlines()[-1]
    assert last == "Logging: 2,000/2,000 tokens, 100 tokens/s"


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left():
    reporter, stream = _reporter(terminal=True)
    with reporter.step("Logging gradients", total=100, unit="tokens") as advance:
        for _ in range(10):
            advance(10)
    shown = stream.getvalue()
    assert "Logging gradients" in shown
    assert "100 %" in shown
    assert re.search(r"[\d,]+ tokens/s", shown)
    assert "left" in shown


def test_nothing_to_do_is_no_division_by_zero():
    for terminal in (True, False):
        reporter, stream = _reporter(terminal=terminal)
        with reporter.step("Nothing", total=0, unit="tokens"):
            pass
        assert "Nothing" in stream.getvalue()


def test_a_note_is_printed_as_it_is():
    reporter, stream = _reporter(terminal=False)
    reporter.note("[bold]not markup[/bold] " + "x" * 200)
    assert stream.getvalue() == "[bold]not markup[/bold] " + "x" * 200 + "\n"


def test_progress_goes_to_stderr(capsys):
    reporter = Reporter()
    reporter.note("hello")
    with reporter.step("Work", total=1, unit="tokens") as advance:
        advance(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err
    assert "Work: 1/1 tokens" in captured.err


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_inside_a_step_comes_out(terminal):
    reporter, _ = _reporter(terminal=terminal)
    with pytest.raises(KeyError), reporter.step("Work", total=1, unit="tokens"):
        raise KeyError


def test_silence_says_nothing(capsys):
    silence = Silence()
    silence.note("hello")
    with silence.step("Work", total=1, unit="tokens") as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
