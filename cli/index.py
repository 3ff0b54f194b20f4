"""`whence index`: a corpus and a model in, an index folder out."""

import math
from pathlib import Path
from typing import Annotated

import typer

from influence.manifest import IndexSettings

DEFAULTS = IndexSettings()
# 32 KB a passage in fp16; weak queries are told apart better than at 4,096 (docs/methods.md).
AUTO_DIMS = 16_384


def _dims(value: str) -> int:
    if value == "auto":
        return AUTO_DIMS
    if value.isdigit() and int(value) >= 8:
        return int(value)
    raise typer.BadParameter(f"{value!r} is neither auto nor a whole number of at least 8")


def _positive(value: float) -> float:
    if math.isnan(value) or value <= 0:
        raise typer.BadParameter(f"{value} is not above 0")
    return value


def index(
    corpus: Annotated[str, typer.Argument(help="File, folder or dataset of documents.")],
    model: Annotated[str, typer.Option(help="The model that was trained on the corpus.")],
    out: Annotated[Path, typer.Option(help="The index folder.")],
    dims: Annotated[
        str, typer.Option(help="Numbers of a stored vector: auto, or a number.")
    ] = "auto",
    rank: Annotated[int, typer.Option(min=1, help="Rank of each side of a layer.")] = DEFAULTS.rank,
    damping: Annotated[
        float, typer.Option(help="Fraction of a layer's mean eigenvalue.", callback=_positive)
    ] = DEFAULTS.damping,
    joint_damping: Annotated[
        float,
        typer.Option(help="The same across layers; inf turns it off.", callback=_positive),
    ] = DEFAULTS.joint_damping,
    hessian: Annotated[str, typer.Option(help="ekfac or identity.")] = DEFAULTS.hessian,
    layers: Annotated[
        list[str] | None, typer.Option(help="Pattern of attributed layers; repeat for several.")
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=2, help="Most tokens of a passage.")
    ] = DEFAULTS.max_length,
    fit_passages: Annotated[
        int, typer.Option(min=1, help="Passages sampled for the curvature.")
    ] = DEFAULTS.fit_passages,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a batch, padding included.")
    ] = DEFAULTS.batch_tokens,
    shard_passages: Annotated[
        int, typer.Option(min=1, help="Rows of a shard, the unit of resuming.")
    ] = DEFAULTS.shard_passages,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = DEFAULTS.seed,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    skip_bad_records: Annotated[
        bool, typer.Option("--skip-bad-records", help="Count and skip unreadable records.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an unfinished build away first.")
    ] = False,
) -> None:
    """Build an index of CORPUS, or continue a build that was interrupted."""
    from indexer.build import build_index
    from indexer.progress import Reporter
    from influence.model import load_model

    if hessian not in ("ekfac", "identity"):
        raise typer.BadParameter(f"{hessian!r} is neither ekfac nor identity", param_hint="hessian")
    settings = IndexSettings(
        rank=rank,
        dims=_dims(dims),
        hessian="ekfac" if hessian == "ekfac" else "identity",
        damping=damping,
        joint_damping=joint_damping,
        layers=tuple(layers or DEFAULTS.layers),
        max_length=max_length,
        seed=seed,
        fit_passages=fit_passages,
        batch_tokens=batch_tokens,
        shard_passages=shard_passages,
    )
    version = build_index(
        corpus,
        load_model(model, device=device, dtype=dtype),
        out,
        settings,
        reporter=Reporter(),
        skip_bad_records=skip_bad_records,
        restart=restart,
    )
    typer.echo(version)
