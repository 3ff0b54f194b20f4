"""`whence info` and `whence verify`: what an index is, and whether it is whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from influence.errors import IndexCorrupt
from influence.manifest import Quality
from influence.remote import is_url
from influence.repair import repair_index
from influence.store import IndexReader
from influence.transfer import local_index, verify_remote

Index = Annotated[str, typer.Argument(help="The index: a folder, or a URL such as s3://….")]


def info(
    index: Index,
    json: Annotated[bool, typer.Option("--json", help="The whole manifest, as JSON.")] = False,
) -> None:
    """Say what an index was built from and what it holds."""
    reader = IndexReader.open(local_index(index))
    manifest = reader.manifest
    if json:
        typer.echo(manifest.to_bytes().decode(), nl=False)
        return
    size = sum(entry.size_bytes for entry in manifest.files.values())
    lines = {
        "version": reader.version,
        "model": f"{manifest.model.name} ({manifest.model.dtype})",
        "corpus": f"{manifest.corpus.name}: {manifest.corpus.documents} documents, "
        f"{manifest.corpus.target_tokens} target tokens",
        "passages": f"{len(reader)} of {manifest.vector_dims} dims, {size / 1e6:.1f} MB",
        "left out": str(len(manifest.left_out_passages)),
        "coverage": f"{manifest.coverage.share_of_linear:.1%} of the linear parameters, "
        f"{manifest.coverage.share_of_all:.1%} of all",
        "curvature": f"{manifest.settings.hessian}, rank {manifest.settings.rank}, keeps "
        f"{manifest.fit.share_of_curvature:.1%}; damping {manifest.settings.damping}, "
        f"joint damping {manifest.settings.joint_damping}",
        "sketch": f"{manifest.coordinates} coordinates; noise of a cosine "
        f"{manifest.sketch_noise:.4f}",
    }
    if manifest.training is not None:
        lines["curvature"] = f"rank {manifest.settings.rank}, of each segment of training"
        lines["method"] = f"source, along {manifest.training.steps} steps"
    for name, value in lines.items():
        typer.echo(f"{name:<10} {value}")
    for part in manifest.training.segments if manifest.training is not None else ():
        typer.echo(
            f"{'segment':<10} {part.name}: steps {part.first_step} to {part.last_step}, "
            f"checkpoints {', '.join(map(str, part.checkpoints))}, learning rate "
            f"{part.learning_rate:.3g}, curvature {part.curvature:.3g}, kept {part.kept:.1%}"
        )
    for line in _quality(manifest.quality) or ["not measured"]:
        typer.echo(f"{'quality':<10} {line}")


def _quality(measured: Sequence[Quality]) -> list[str]:
    return [
        f"{entry.measure} {entry.value:.3f} [{entry.low:.3f}, {entry.high:.3f}], {entry.date}: "
        f"{entry.protocol}"
        for entry in measured
    ]


def verify(
    index: Index,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make damaged files again that are derived.")
    ] = False,
) -> None:
    """Hash every file of an index against its manifest; at a URL those that are there.

    Search structures (`whence search-index`) are held against their own records.
    """
    from service.search.derived import FOLDER, damaged_structures

    if repair:
        if is_url(index):
            raise typer.BadParameter("an index at a URL is pulled first", param_hint="repair")
        _repair(Path(index))
        return
    if is_url(index):
        version, count = verify_remote(index)
        typer.echo(f"{version}: {count} files, all as the manifest says.")
        return
    reader = IndexReader.open(Path(index))
    reader.verify()
    if damaged := damaged_structures(reader):
        raise IndexCorrupt(
            f"{' and '.join(f'{FOLDER}/{kind}' for kind in damaged)} of {reader.directory} is not "
            "what this version's vectors give; a server makes it anew when it starts. Make it now "
            f"with `whence verify --repair {index}`."
        )
    typer.echo(f"{reader.version}: {len(reader.manifest.files)} files, all as the manifest says.")


def _repair(index_dir: Path) -> None:
    from service.search.choice import repair_searches
    from service.search.derived import FOLDER

    version, repaired = repair_index(index_dir)
    searches = repair_searches(IndexReader.open(index_dir, version))
    again = (*repaired, *(f"{FOLDER}/{kind}" for kind in searches))
    typer.echo(f"{version}: {', '.join(again) or 'nothing'} had to be made again.")
