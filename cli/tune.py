"""`whence tune`: which settings suit a model and its documents?"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from evaluation.tuning import Tuned

Measure = Literal["recall", "tail-patch"]


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
    measure: Annotated[
        Measure,
        typer.Option(
            help="Of an index: recall asks whether the documents that state the answers come "
            "first; tail-patch, which needs no documents, makes a step of training on what does."
        ),
    ] = "recall",
    top_k: Annotated[int, typer.Option("-k", min=1, help="Passages of a tail-patch step.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Folder for the curves: .md, .svg.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
) -> None:
    """Try rank, dims, dampings and ranking; pick on every second query, report on the others."""
    if (index is None) == (task is None):
        raise typer.BadParameter("give an index, or --task language or --task digits")
    if task is not None:
        name, tuned = "LDS", _by_lds(task, small=small)
    else:
        assert index is not None
        name = {"recall": "MRR", "tail-patch": "tail-patch, nats"}[measure]
        k = top_k if measure == "tail-patch" else None
        tuned = _of_index(index, queries, model, passages, count, seed, device, k)
    _tell(name, tuned, out)


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


def _of_index(
    index: Path,
    queries: Path | None,
    model: str | None,
    passages: int,
    count: int,
    seed: int,
    device: str,
    top_k: int | None,
) -> "Tuned":
    import numpy as np

    from evaluation.index_sample import by_recall, by_tail_patch, sample_index
    from evaluation.tuning import tune as tried
    from indexer.progress import Reporter
    from influence.model import load_model
    from influence.store import IndexReader, check_built_from

    reader = IndexReader.open(index)
    loaded = load_model(model or reader.manifest.model.name, device=device, dtype="float32")
    check_built_from(reader, loaded)
    sample = sample_index(reader, loaded, queries, passages=passages, count=count, seed=seed)
    criterion = by_recall(sample) if top_k is None else by_tail_patch(sample, top_k=top_k)
    reported = np.arange(len(sample.questions)) % 2 == 0
    return tried(sample.subject, criterion, reported, reporter=Reporter())


def _tell(measure: str, tuned: "Tuned", out: Path | None) -> None:
    from evaluation.tuning import curves, plots
    from influence.atomic import storage_errors, write_bytes

    best, own, default = tuned.best, tuned.reported, tuned.default
    joint = "inf" if math.isinf(best.joint_damping) else f"{best.joint_damping:g}"
    told = (
        f"{curves(tuned, measure)}\n\n{measure} on queries that nothing was picked on: "
        f"{own.mean:.3f} [{own.low:.3f}, {own.high:.3f}]; at the defaults {default.mean:.3f} "
        f"[{default.low:.3f}, {default.high:.3f}].\n\nwhence index … --rank {best.rank} --dims "
        f"{best.dims} --damping {best.damping:g} --joint-damping {joint}\n(ranking: {best.ranking})"
    )
    typer.echo(told)
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, content in {"tune.md": f"{told}\n", **plots(tuned, measure)}.items():
            write_bytes(out / name, content.encode())
