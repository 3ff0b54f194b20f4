"""Whole evaluations: train, compare, show, write."""

from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.cache import default_cache_dir
from evaluation.catalogue import FULL_EKFAC, LARGE_REFERENCE, methods_of, methods_of_large
from evaluation.comparison import Row, compare
from evaluation.finetuned import FinetunedTask, FinetuneSettings, finetuned_trial
from evaluation.studies import study_brittleness, study_curation
from evaluation.study_tables import (
    brittleness_plot,
    brittleness_table,
    curation_plot,
    curation_table,
)
from evaluation.table import as_json, markdown
from evaluation.trial import Name, Trial, run_trial
from indexer.progress import Reporter
from influence.atomic import storage_errors, write_bytes
from influence.model import load_model

Show = Callable[[str], object]


def run_methods(
    tasks: Sequence[Name],
    *,
    small: bool,
    out: Path | None,
    cache: Path | None,
    show: Show,
    reporter: Reporter | None = None,
) -> None:
    """Compare every method on tasks, show each table and write it.

    Args:
        tasks: Names.
        small: See `evaluation.trial.run_trial`.
        out: Folder for ``methods-TASK.md`` and ``.json``; None writes nothing.
        cache: Folder of retrained outputs; None is the user's cache.
        show: Gets each table.
        reporter: Told how far the work is.

    Raises:
        StorageFull: A folder cannot be written.
    """
    reporter = reporter or Reporter()
    for task in tasks:
        trial = run_trial(task, small=small, cache=cache or default_cache_dir(), reporter=reporter)
        rows = compare(trial, methods_of(task), reference=FULL_EKFAC, reporter=reporter)
        _deliver(f"methods-{task}", trial, rows, out, show)


def run_finetuned(
    settings: FinetuneSettings,
    *,
    device: str,
    out: Path | None,
    cache: Path | None,
    show: Show,
    reporter: Reporter | None = None,
) -> None:
    """LDS of a model that is fine-tuned by configuration; other arguments as `run_methods`.

    Args:
        settings: See `evaluation.finetuned`.
        device: Of the trainings and the gradients.
        out: As `run_methods`.
        cache: As `run_methods`.
        show: As `run_methods`.
        reporter: As `run_methods`.

    Raises:
        CorpusError: A text makes no block.
        ModelUnavailable: There is no such model.
    """
    reporter = reporter or Reporter()
    start = load_model(settings.model, device=device, dtype="float32")
    task = FinetunedTask(settings, start, cache=cache or default_cache_dir())
    trial = finetuned_trial(task, reporter)
    rows = compare(trial, methods_of_large(), reference=LARGE_REFERENCE, reporter=reporter)
    _deliver("methods-finetuned", trial, rows, out, show)


def run_brittleness(
    *,
    small: bool,
    out: Path | None,
    cache: Path | None,
    show: Show,
    reporter: Reporter | None = None,
) -> None:
    """What removing proponents does to digits; arguments as `run_methods`."""
    protocol, curve = study_brittleness(
        small=small, cache=cache or default_cache_dir(), reporter=reporter or Reporter()
    )
    _write("brittleness-digits", brittleness_table(protocol, curve), out, show)
    if out is not None:
        write_bytes(out / "brittleness-digits.svg", brittleness_plot(curve).encode())


def run_curation(
    *,
    small: bool,
    out: Path | None,
    cache: Path | None,
    show: Show,
    reporter: Reporter | None = None,
) -> None:
    """What keeping the most valuable digits gives; arguments as `run_methods`."""
    found = study_curation(
        small=small, cache=cache or default_cache_dir(), reporter=reporter or Reporter()
    )
    _write("curation-digits", curation_table(found), out, show)
    if out is not None:
        write_bytes(out / "curation-digits.svg", curation_plot(found).encode())


def _write(name: str, table: str, out: Path | None, show: Show) -> None:
    show(table)
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / f"{name}.md", table.encode())


def _deliver(name: str, trial: Trial, rows: Sequence[Row], out: Path | None, show: Show) -> None:
    _write(name, markdown(trial, rows), out, show)
    if out is not None:
        write_bytes(out / f"{name}.json", as_json(trial, rows).encode())
