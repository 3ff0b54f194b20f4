"""`whence info` and `whence verify`: what an index is, and whether it is whole."""

from pathlib import Path
from typing import Annotated

import typer

from influence.store import IndexReader

Index = Annotated[Path, typer.Argument(help="The index folder.")]


def info(
    index: Index,
    json: Annotated[bool, typer.Option("--json", help="The whole manifest, as JSON.")] = False,
) -> None:
    """Say what an index was built from and what it holds."""
    reader = IndexReader.open(index)
    manifest = reader.manifest
    if json:
        typer.echo(manifest.to_bytes().decode(), nl=False)
        return
    size = sum(entry.size_bytes for entry in manifest.files.values())
    measured = ", ".join(f"{k} {v:.3f}" for k, v in manifest.measured.items()) or "not measured"
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
        "quality": measured,
    }
    for name, value in lines.items():
        typer.echo(f"{name:<10} {value}")


def verify(index: Index) -> None:
    """Hash every file of an index against its manifest."""
    reader = IndexReader.open(index)
    reader.verify()
    typer.echo(f"{reader.version}: {len(reader.manifest.files)} files, all as the manifest says.")
