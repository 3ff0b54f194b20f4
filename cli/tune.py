"""`whence tune`: which settings suit a model and its documents?"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evaluation.tuning import Tuned


def tune(
    index: Annotated[
        Path | None, typer.Argument(help="An index, whose documents and model are tried.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with prompt, response and documents, the ids of those that state the "
            "answer. By default passages are asked for their own second halves."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    passages: Annotated[int, typer.Option(min=8, help="Passages tried on, at most.")] = 200,
    count: Annotated[int, typer.Option(min=4, help="Questions, without --queries.")] = 60,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    task: Annotated[
        str | None,
        typer.Option(help="A task of whence evaluate methods: by LDS, instead of an index."),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="With --task: a size of seconds.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
) -> None:
    """Try rank, dims, dampings and ranking; pick on every second query, report on the others."""
    if (index is None) == (task is None):
        raise typer.BadParameter("give an index, or --task language or --task digits")
    if task is not None:
        measure, tuned = "LDS", _by_lds(task, small=small)
    else:
        assert index is not None
        measure, tuned = "MRR", _by_recall(index, queries, model, passages, count, seed, device)
    _tell(measure, tuned)


def _by_lds(task: str, *, small: bool) -> "Tuned":
    import numpy as np

    from evaluation.cache import default_cache_dir
    from evaluation.lds import spearman
    from evaluation.trial import NAMES, Name, run_trial
    from evaluation.tuning import tune as tried
    from indexer.progress import Reporter

    names: dict[str, Name] = {name: name for name in NAMES}
    if task not in names:
        raise typer.BadParameter(f"{task!r} is not one of {', '.join(NAMES)}", param_hint="--task")
    reporter = Reporter()
    trial = run_trial(names[task], small=small, cache=default_cache_dir(), reporter=reporter)
    subsets = trial.subsets.astype(np.float64)
    return tried(
        trial.subjects[0],
        lambda scores: spearman(subsets @ scores.T, trial.outputs),
        trial.reported,
        reporter=reporter,
    )


def _by_recall(
    index: Path,
    queries: Path | None,
    model: str | None,
    passages: int,
    count: int,
    seed: int,
    device: str,
) -> "Tuned":
    import numpy as np

    from evaluation.planted import planted
    from evaluation.tuning import tune as tried
    from indexer.progress import Reporter
    from influence.model import load_model
    from influence.store import IndexReader, check_built_from

    reader = IndexReader.open(index)
    loaded = load_model(model or reader.manifest.model.name, device=device, dtype="float32")
    check_built_from(reader, loaded)
    subject, criterion = planted(reader, loaded, queries, passages=passages, count=count, seed=seed)
    reported = np.arange(len(subject.queries)) % 2 == 0
    return tried(subject, criterion, reported, reporter=Reporter())


def _tell(measure: str, tuned: "Tuned") -> None:
    from evaluation.tuning import curves

    best, own, default = tuned.best, tuned.reported, tuned.default
    joint = "inf" if math.isinf(best.joint_damping) else f"{best.joint_damping:g}"
    typer.echo(
        f"{curves(tuned, measure)}\n\n{measure} on queries that nothing was picked on: "
        f"{own.mean:.3f} [{own.low:.3f}, {own.high:.3f}]; at the defaults {default.mean:.3f} "
        f"[{default.low:.3f}, {default.high:.3f}].\n\nwhence index … --rank {best.rank} --dims "
        f"{best.dims} --damping {best.damping:g} --joint-damping {joint}\n(ranking: {best.ranking})"
    )
