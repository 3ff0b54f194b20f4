"""A new version of an index with other dampings, its vectors rescaled (`influence.redamping`)."""

import shutil
from pathlib import Path

import numpy as np
import torch

from indexer.build import BASIS
from indexer.calibration import calibrate
from indexer.progress import Reporter
from influence.atomic import write_bytes
from influence.basis import Basis, basis_of, save_basis
from influence.encoder import GradientEncoder
from influence.errors import InvalidInput
from influence.lock import changing, sole_writer
from influence.manifest import (
    FORMAT_VERSION,
    Calibration,
    Change,
    IndexSettings,
    Manifest,
    plan_sha256,
)
from influence.model import LoadedModel
from influence.redamping import redamped_basis, rescaled, rounding
from influence.staging import Staging
from influence.store import IndexReader, check_built_from
from influence.stored_tokens import StoredTokens
from influence.totals import OWNERS, sum_owners
from influence.versions import make_current, published_version, with_measurements

MEASURED_ROWS = 256  # for the rounding error that is told


def redamp_index(
    index_dir: Path,
    *,
    damping: float | None = None,
    joint_damping: float | None = None,
    loaded: LoadedModel | None = None,
    reporter: Reporter,
    restart: bool = False,
) -> str:
    """Publish a version of the current index with other dampings, by its stored numbers alone.

    Confidence is calibrated again where the model is given; else its calibration is dropped, since
    it belongs to the dampings before.

    Args:
        index_dir: The index.
        damping: ``c`` of the layers; None leaves it.
        joint_damping: ``c₂`` across layers, infinity for off; None leaves it.
        loaded: The model of the index.
        reporter: Told how far the work is.
        restart: Throw away an unfinished build in the folder.

    Returns:
        The name of the published version.

    Raises:
        InvalidInput: The stored numbers do not allow it; the message says why.
        IndexMismatch: The model is not that of the index.
        IndexUnavailable: There is no index, or it is damaged.
        BuildConflict: The folder holds an unfinished build.
        IndexBusy: Another process is writing to it.
        StorageFull: The disk is full or the folder cannot be written.
    """
    # Both locks: what is removed while vectors are rescaled would be there again.
    with sole_writer(index_dir), changing(index_dir):
        return _redamp(index_dir, damping, joint_damping, loaded, reporter, restart=restart)


def _redamp(
    index_dir: Path,
    damping: float | None,
    joint_damping: float | None,
    loaded: LoadedModel | None,
    reporter: Reporter,
    *,
    restart: bool,
) -> str:
    reader = IndexReader.open(index_dir)
    reader.verify()  # or the hashes of copies would make damage look sound
    manifest = reader.manifest
    if loaded is not None:
        check_built_from(reader, loaded)
    if manifest.settings.method == "source":
        raise InvalidInput(
            f"The index in {index_dir} follows a training (SOURCE), which is its own damping. "
            "There is none to change; train otherwise, or build an index of method influence."
        )
    settings = _redamped_settings(manifest.settings, damping, joint_damping)
    if settings == manifest.settings:
        reporter.note(f"Version {reader.version} has these dampings already.")
        return reader.version
    old = basis_of(reader)
    chosen = settings.model_dump()
    new = redamped_basis(old, damping=chosen["damping"], joint_damping=chosen["joint_damping"])
    plan = {
        "format_version": FORMAT_VERSION,
        "redamped_from": reader.version,
        "settings": settings.model_dump(mode="json"),
        "calibrated": loaded is not None,
    }
    if done := published_version(index_dir, plan):
        done = with_measurements(index_dir, done)
        make_current(index_dir, done)
        reporter.note(f"This very index is already there: version {done}.")
        return done
    staging = Staging.open(index_dir, plan, restart=restart)
    kept = _copy_unchanged(reader, staging)
    with staging.file(BASIS) as temporary:
        save_basis(new, temporary)
    error = _rescale(reader, staging, old, new, reporter)
    totals = sum_owners(staging.directory, manifest.shards, reader.dims, reader.tombstones)
    write_bytes(staging.directory / OWNERS, totals.to_bytes())
    calibration = _calibration(reader, staging, loaded, settings, new, reporter)
    redamped = _described(manifest, settings, new).model_copy(
        update={
            "calibration": calibration,
            "plan_sha256": plan_sha256(plan),
            "history": (*manifest.history, Change(kind="redamped", parent=reader.version)),
            "files": staging.describe_files(manifest.shards, [BASIS, OWNERS, *kept]),
        }
    )
    version = staging.publish(redamped)
    reporter.note(
        f"Published version {version}. Rounding of the stored numbers is now {error:.1e} of a "
        "vector."
    )
    return version


def _calibration(
    reader: IndexReader,
    staging: Staging,
    loaded: LoadedModel | None,
    settings: IndexSettings,
    basis: Basis,
    reporter: Reporter,
) -> Calibration:
    if loaded is None:
        if reader.manifest.calibration.null_best_z:
            reporter.note(
                "The calibration of confidence is dropped: it was measured with the dampings "
                "before. Confidence is now judged by each query's own scores; give --model to "
                "calibrate again."
            )
        return Calibration()
    tokens = StoredTokens(reader.document, loaded.tokenizer, max_length=settings.max_length)
    step = -(-len(reader) // settings.fit_passages)
    return calibrate(
        GradientEncoder(loaded, basis),
        [tokens.of(reader.passage(row)) for row in range(0, len(reader), step)],
        staging.vectors(reader.manifest.shards),  # removed rows among them: too few to matter
        settings,
        reporter=reporter,
    )


def _redamped_settings(
    settings: IndexSettings, damping: float | None, joint_damping: float | None
) -> IndexSettings:
    changes = {"damping": damping, "joint_damping": joint_damping}
    given = {name: value for name, value in changes.items() if value is not None}
    return IndexSettings(**{**settings.model_dump(), **given})


def _copy_unchanged(reader: IndexReader, staging: Staging) -> list[str]:
    """Copy what the damping does not touch; the names of files that `describe_files` omits."""
    omitted = []
    for name in reader.manifest.files:
        folder = name.split("/")[0]
        if folder in ("vectors", BASIS, OWNERS):
            continue
        with staging.file(name) as temporary:
            shutil.copyfile(reader.directory / name, temporary)
        if folder not in ("passages", "documents"):
            omitted.append(name)
    return omitted


def _rescale(
    reader: IndexReader, staging: Staging, old: Basis, new: Basis, reporter: Reporter
) -> float:
    """Write the rescaled vectors shard by shard; the rounding error of the first rows."""
    error = 0.0
    shards = zip(reader.manifest.shards, reader.stored_shards(), strict=True)
    with reporter.step("Rescaling", total=reader.manifest.rows, unit="passages") as advance:
        for number, (shard, units) in enumerate(shards):
            wide = torch.from_numpy(np.asarray(units, dtype=np.float32))
            norms = torch.from_numpy(np.array(reader.stored_norms(number)))
            if number == 0:
                error = rounding(wide[:MEASURED_ROWS], old, new, seed=0)
            vectors = rescaled(wide * norms[:, None], old, new)
            staging.write_vectors(shard.name, vectors.numpy())
            advance(shard.rows)
    return error


def _described(manifest: Manifest, settings: IndexSettings, basis: Basis) -> Manifest:
    """The manifest with the new dampings; what was measured with the old ones is gone."""
    joint = basis.joint
    picked = {
        name: how
        for name, how in manifest.fit.picked.items()
        if getattr(settings, name, None) == getattr(manifest.settings, name, None)
    }
    fit = manifest.fit.model_copy(
        update={
            "joint_rank": 0 if joint is None or joint.is_identity else len(joint.eigenvalues),
            "picked": picked,
        }
    )
    return manifest.model_copy(
        update={
            "settings": settings,
            "fit": fit,
            "quality": (),
        }
    )
