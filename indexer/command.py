"""The options of `whence index` and `python -m indexer`: corpus and model in, an index out."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from influence.manifest import IndexSettings
from influence.remote import folder_of


def _default(name: str) -> Any:
    return IndexSettings.model_fields[name].default


def _dims(value: str) -> str:
    if value == "auto" or (value.isdigit() and int(value) >= 8):
        return value
    raise typer.BadParameter(f"{value!r} is neither auto nor a whole number of at least 8")


def _rank(value: str) -> str:
    if value == "auto" or (value.isdigit() and int(value) >= 1):
        return value
    raise typer.BadParameter(f"{value!r} is neither auto nor a whole number above 0")


def _damping(value: str) -> str:
    try:
        if value == "auto" or float(value) > 0:
            return value
    except ValueError:
        pass
    raise typer.BadParameter(f"{value!r} is neither auto nor a number above 0")


def index(
    corpus: Annotated[str, typer.Argument(help="File, folder or dataset of documents.")],
    context: typer.Context,
    out: Annotated[
        Path, typer.Option(help="The index folder.", parser=folder_of, metavar="FOLDER")
    ],
    model: Annotated[
        str | None, typer.Option(help="The model that was trained on the corpus.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="influence: of the model; source: along its training.")
    ] = _default("method"),
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="For source: the folder of checkpoints and their record, in the place of a model."
        ),
    ] = None,
    segments: Annotated[
        str | None,
        typer.Option(help="For source: how many segments of training, or stages, as recorded."),
    ] = None,
    dims: Annotated[
        str,
        typer.Option(help="Numbers of a stored vector: a number, or auto.", callback=_dims),
    ] = str(_default("dims")),
    rank: Annotated[
        str, typer.Option(help="Rank of each side of a layer: a number, or auto.", callback=_rank)
    ] = str(_default("rank")),
    rank_budget: Annotated[
        int, typer.Option(min=1, help="With rank auto: the rank whose cost in all is spent.")
    ] = _default("rank_budget"),
    damping: Annotated[
        str,
        typer.Option(help="Fraction of a layer's mean eigenvalue, or auto.", callback=_damping),
    ] = str(_default("damping")),
    joint_damping: Annotated[
        str,
        typer.Option(help="The same across layers, or auto; inf: off.", callback=_damping),
    ] = str(_default("joint_damping")),
    hessian: Annotated[str, typer.Option(help="ekfac, kfac, raw or identity.")] = _default(
        "hessian"
    ),
    projection: Annotated[str, typer.Option(help="pca or random.")] = _default("projection"),
    labels: Annotated[
        str | None,
        typer.Option(
            help="Tokens that fit the curvature: empirical, by default, or sampled, as for source."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern of attributed layers, with a leading ! of excluded ones, or head, "
            "embeddings or norms; repeat for several."
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="With PEFT adapters: adapter, base or all; auto: adapter, if any.")
    ] = _default("target"),
    max_length: Annotated[int, typer.Option(min=2, help="Most tokens of a passage.")] = _default(
        "max_length"
    ),
    fit_passages: Annotated[
        int, typer.Option(min=1, help="Passages sampled for the curvature.")
    ] = _default("fit_passages"),
    null_queries: Annotated[
        int,
        typer.Option(min=0, help="Null answers of each kind that calibrate confidence; 0: off."),
    ] = _default("null_queries"),
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a batch, padding included.")
    ] = _default("batch_tokens"),
    shard_passages: Annotated[
        int, typer.Option(min=1, help="Rows of a shard, the unit of resuming.")
    ] = _default("shard_passages"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = _default("seed"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    trust_remote_code: Annotated[
        str | None, typer.Option(help="The model, by its name, if its own code may run.")
    ] = None,
    skip_bad_records: Annotated[
        bool, typer.Option("--skip-bad-records", help="Count and skip unreadable records.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an unfinished build away first.")
    ] = False,
) -> None:
    """Build an index of CORPUS, or continue a build that was interrupted.

    Started by torchrun or in SLURM, the processes build one index together; all of them must see
    the corpus and the folder of the index.
    """
    from indexer.crew import Crew

    _check_method(context, method, model, checkpoints, segments)
    crew = Crew.from_environment(os.environ)
    settings = _settings(
        method=method,
        segments=int(segments) if segments and segments.isdecimal() else segments,
        rank=rank if rank == "auto" else int(rank),
        rank_budget=rank_budget,
        dims=dims if dims == "auto" else int(dims),
        hessian=hessian,
        projection=projection,
        labels=labels or ("sampled" if method == "source" else _default("labels")),
        damping=_number(damping),
        joint_damping=_number(joint_damping),
        layers=tuple(layers or _default("layers")),
        target=target,
        max_length=max_length,
        seed=seed,
        fit_passages=fit_passages,
        null_queries=null_queries,
        batch_tokens=batch_tokens,
        shard_passages=shard_passages,
    )
    from indexer.build import build_index
    from indexer.progress import Reporter
    from influence.model import load_model

    unrolling = None
    if checkpoints is not None:
        from indexer.checkpoints import CheckpointFolder
        from indexer.unrolling import Unrolling

        folder = CheckpointFolder(checkpoints, device=crew.device(device), dtype=dtype)
        unrolling = Unrolling(folder, corpus, skip_bad_records=skip_bad_records)
        loaded = folder.last
    else:
        assert model is not None  # checked above
        loaded = load_model(
            model,
            device=crew.device(device),
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
    version = build_index(
        corpus,
        loaded,
        out,
        settings,
        reporter=Reporter(name=crew.name),
        skip_bad_records=skip_bad_records,
        restart=restart,
        crew=crew,
        unrolling=unrolling,
    )
    if crew.rank == 0:
        typer.echo(version)


def _check_method(
    context: typer.Context,
    method: str,
    model: str | None,
    checkpoints: Path | None,
    segments: str | None,
) -> None:
    if method != "source":
        if model is None or checkpoints is not None or segments is not None:
            raise typer.BadParameter(
                "give --model; --checkpoints and --segments are of --method source"
            )
        return
    if checkpoints is None or segments is None or model is not None:
        raise typer.BadParameter(
            "method source takes --checkpoints and --segments; its model is the last checkpoint"
        )
    for name in ("damping", "joint_damping"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise typer.BadParameter(
                f"method source has no --{name.replace('_', '-')}: training is its damping"
            )


def _number(value: str) -> float | str:
    return value if value == "auto" else math.inf if value == "inf" else float(value)


def _settings(**values: Any) -> IndexSettings:
    try:
        return IndexSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "the settings"
        raise typer.BadParameter(f"{name}: {first['msg']}") from error
