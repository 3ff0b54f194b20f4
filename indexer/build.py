"""Build an index: survey the corpus, fit the basis, log every passage in shards, publish.

Each stage leaves its result in the staging folder, whole or not at all, so a build that was killed
continues after its last finished shard and ends with the same bytes. Several processes may build
one index together (`indexer.crew`).
"""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from indexer.calibration import calibrate
from indexer.corpus import locate_corpus
from indexer.crew import Crew, ending
from indexer.fit import Fitted, fit_basis
from indexer.passages import document_cutter
from indexer.progress import Reporter
from indexer.shards import Logged, log_shards
from indexer.survey import Survey, survey_corpus
from indexer.units import Units
from indexer.unrolling import Unrolling
from influence.atomic import write_bytes
from influence.basis import load_basis, save_basis
from influence.encoder import GradientEncoder
from influence.errors import BuildConflict, InvalidInput, NumericalError
from influence.layers import coverage
from influence.lock import ENTRANCE, WRITERS, FileLock, changing, locked, sign
from influence.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Calibration,
    Change,
    CorpusIdentity,
    CoverageEntry,
    FitEntry,
    IndexSettings,
    LayerEntry,
    Manifest,
    ModelIdentity,
    dims_for,
    plan_sha256,
    read_manifest,
)
from influence.model import LoadedModel
from influence.placement import is_sharded
from influence.staging import Staging
from influence.store import IndexReader
from influence.totals import OWNERS, sum_owners
from influence.versions import (
    CURRENT,
    SHARD_RECORDS,
    VERSIONS,
    current_version,
    make_current,
    published_version,
    with_measurements,
)

BASIS = "basis.safetensors"
FIT_RECORD = f"{SHARD_RECORDS}/fit.json"
CALIBRATION_RECORD = f"{SHARD_RECORDS}/calibration.json"


def build_index(
    corpus: str,
    loaded: LoadedModel,
    index_dir: Path,
    settings: IndexSettings,
    *,
    reporter: Reporter,
    skip_bad_records: bool = False,
    restart: bool = False,
    crew: Crew = Crew(),  # noqa: B008 - frozen
    refitted: IndexReader | None = None,
    unrolling: Unrolling | None = None,
) -> str:
    """Build the index of a corpus, continue a build that was interrupted, or join a running one.

    Args:
        corpus: A file, a folder or a dataset (`indexer.corpus.read_corpus`).
        loaded: The model that was trained on it.
        index_dir: The index folder.
        settings: Everything that changes a score.
        reporter: Told how far the work is.
        skip_bad_records: Count and skip records that cannot be read, instead of stopping.
        restart: Throw away an unfinished build in the folder that nobody works on.
        crew: This process among those that build the index together.
        refitted: The version whose documents are the corpus (`indexer.refit`).
        unrolling: The training to follow, whose last checkpoint is the model; for method source.

    Returns:
        The name of the published version.

    Raises:
        CorpusError: The corpus is empty or a record of it cannot be read.
        BuildConflict: The folder holds an unfinished build with other settings, or this very
            index, from which documents were removed since.
        StorageFull: The disk is full or the folder cannot be written.
        NumericalError: No passage has a finite gradient.
        InvalidInput: The model is sharded; method source without checkpoints.
    """
    if is_sharded(loaded.model):
        raise InvalidInput(
            f"{loaded.name} is sharded by FSDP, whose processes must run every batch together, and "
            "an index is built by processes that each take shards of their own. Use --device "
            "spread, or encode with influence.encoder.GradientEncoder in every process."
        )
    if settings.method == "source" and unrolling is None:
        raise InvalidInput(
            "An index of SOURCE is built from the checkpoints of a training, and one model was "
            "given. Use `whence index CORPUS --method source --checkpoints DIR --out INDEX`."
        )
    settings = settings.model_copy(
        update={"max_length": min(settings.max_length, loaded.context_length)}
    )
    survey = survey_corpus(
        corpus,
        loaded.tokenizer,
        max_length=settings.max_length,
        fit_passages=settings.fit_passages,
        shard_passages=settings.shard_passages,
        seed=settings.seed,
        skip_bad_records=skip_bad_records,
        reporter=reporter,
    )
    if settings.dims == "auto":
        settings = settings.model_copy(update={"dims": dims_for(survey.passages)})
    model = ModelIdentity(
        name=loaded.name,
        weights_sha256=loaded.weights_sha256,
        tokenizer_sha256=loaded.tokenizer_sha256,
        dtype="bfloat16" if loaded.dtype == "bfloat16" else "float32",
    )
    name = Path(corpus).name if refitted is None else refitted.manifest.corpus.name
    identity = survey.identity(name)
    plan = {
        "format_version": FORMAT_VERSION,
        "model": model.model_dump(),
        "corpus": identity.model_dump(),
        "settings": settings.model_dump(mode="json"),
    }
    if unrolling is not None:
        plan["training"] = unrolling.plan()
    digest = plan_sha256(plan)
    with closing(FileLock(index_dir / WRITERS)) as writers:
        with locked(index_dir / ENTRANCE):
            if done := published_version(index_dir, plan):
                with changing(index_dir):
                    _check_unchanged(index_dir, refitted)
                    _check_nothing_comes_back(index_dir, done)
                    done = with_measurements(index_dir, done)
                    make_current(index_dir, done)
                reporter.note(f"This very index is already built: version {done}.")
                return done
            is_alone = writers.try_acquire()
            staging = Staging.open(index_dir, plan, restart=restart, is_alone=is_alone)
            writers.acquire(shared=True)
            sign(index_dir / WRITERS)
        fitted = _fit(staging, loaded, survey, settings, reporter, unrolling)
        units = surveyed_units(corpus, loaded, survey, settings, skip_bad_records=skip_bad_records)
        encoder = GradientEncoder(loaded, fitted.basis)
        if unrolling is not None:
            logged = unrolling.log(staging, fitted.basis, units, survey, settings, reporter, crew)
        else:
            with reporter.step("Logging gradients", total=survey.tokens, unit="tokens") as advance:
                logged = log_shards(staging, encoder, units, settings, advance, crew)
    if not sum(shard.rows for shard in logged.shards):
        raise NumericalError(
            f"None of the {survey.passages} passages has a usable gradient; "
            f"{'; '.join(logged.left_out[:3])}. Check that the model's weights are finite."
        )
    with ending(index_dir), changing(index_dir):
        if not staging.is_unfinished(plan):  # another process of the crew was here before
            done = published_version(index_dir, plan, hashed=False)
            assert done is not None
            if current_version(index_dir) != done:
                _check_unchanged(index_dir, refitted)
                make_current(index_dir, done)
            return done
        _check_unchanged(index_dir, refitted)
        totals = sum_owners(staging.directory, logged.shards, fitted.basis.vector_dims)
        write_bytes(staging.directory / OWNERS, totals.to_bytes())
        calibration = _calibration(staging, encoder, survey, logged, fitted.settings, reporter)
        manifest = _described(staging, loaded, fitted, logged, calibration, model, identity, digest)
        if unrolling is not None:
            manifest = manifest.model_copy(update={"training": unrolling.entry(staging)})
        if refitted is not None:
            change = Change(kind="refitted", parent=refitted.version)
            manifest = manifest.model_copy(update={"history": (*refitted.manifest.history, change)})
        version = staging.publish(manifest)
    reporter.note(
        f"Published version {version}: {manifest.rows} passages of {identity.documents} documents."
    )
    return version


def _check_nothing_comes_back(index_dir: Path, done: str) -> None:
    if not (index_dir / CURRENT).exists():
        return
    current = current_version(index_dir)
    history = read_manifest(index_dir / VERSIONS / current / MANIFEST).history
    removed = sum(change.documents for change in history if change.kind == "removed")
    if removed and done in {change.parent for change in history}:
        raise BuildConflict(
            f"{index_dir} was built from this very corpus as version {done}, and {removed} "
            f"documents have been removed since; version {current} is without them. Leave it as "
            f"it is, index a corpus without them, or `whence rollback {index_dir} --to {done}` to "
            "have them back."
        )


def _check_unchanged(index_dir: Path, refitted: IndexReader | None) -> None:
    if refitted is not None and (current := current_version(index_dir)) != refitted.version:
        raise BuildConflict(
            f"{index_dir} was changed to version {current} while its basis was fitted to the "
            f"documents of {refitted.version}; those that were removed would be there again. Run "
            "whence refit again, with --restart."
        )


def surveyed_units(
    corpus: str,
    loaded: LoadedModel,
    survey: Survey,
    settings: IndexSettings,
    *,
    skip_bad_records: bool,
) -> Units:
    """The shards of a surveyed corpus, each with its passages."""
    return Units(
        lambda: locate_corpus(corpus, skip_bad_records=skip_bad_records),
        document_cutter(
            loaded.tokenizer,
            max_length=settings.max_length,
            skip_bad_records=skip_bad_records,
        ),
        survey.units,
        size=settings.shard_passages,
        passages=survey.passages,
    )


def _described(
    staging: Staging,
    loaded: LoadedModel,
    fitted: Fitted,
    logged: Logged,
    calibration: Calibration,
    model: ModelIdentity,
    corpus: CorpusIdentity,
    digest: str,
) -> Manifest:
    attributed = [layer.layer for layer in fitted.basis.layers]  # those that the loss reaches
    covered = coverage(loaded.model, attributed, target=fitted.settings.target)
    return Manifest(
        plan_sha256=digest,
        model=model,
        corpus=corpus,
        settings=fitted.settings,
        vector_dims=fitted.basis.vector_dims,
        coordinates=fitted.basis.coordinates,
        sketch_noise=fitted.basis.sketch.noise,
        rows=sum(shard.rows for shard in logged.shards),
        shards=logged.shards,
        layers=fitted.layers,
        coverage=CoverageEntry(**asdict(covered)),
        fit=fitted.entry,
        left_out_passages=logged.left_out,
        padding_share=logged.padding_share,
        calibration=calibration,
        files=staging.describe_files(logged.shards, [BASIS, OWNERS]),
    )


def _calibration(
    staging: Staging,
    encoder: GradientEncoder,
    survey: Survey,
    logged: Logged,
    settings: IndexSettings,
    reporter: Reporter,
) -> Calibration:
    """Of the shards just logged, from the staging folder where an earlier run left it there."""
    record = staging.directory / CALIBRATION_RECORD
    if not record.exists():
        calibration = calibrate(
            encoder,
            [passage.tokens for passage in survey.sample],
            staging.vectors(logged.shards),
            settings,
            reporter=reporter,
        )
        write_bytes(record, calibration.model_dump_json().encode())
    return Calibration.model_validate_json(record.read_bytes())


def _fit(
    staging: Staging,
    loaded: LoadedModel,
    survey: Survey,
    settings: IndexSettings,
    reporter: Reporter,
    unrolling: Unrolling | None,
) -> Fitted:
    """The basis, from the staging folder where an earlier run or another process left it there."""
    with locked(staging.directory / SHARD_RECORDS / "fit.lock"):
        if not staging.has(FIT_RECORD):
            if unrolling is not None:
                fitted = unrolling.fit(staging, survey, settings, reporter)
            else:
                spool = staging.directory / "spool"
                fitted = fit_basis(loaded, survey.sample, settings, spool=spool, reporter=reporter)
            with staging.file(BASIS) as temporary:
                save_basis(fitted.basis, temporary)
            record = {
                "settings": fitted.settings.model_dump(mode="json"),
                "layers": [layer.model_dump() for layer in fitted.layers],
                "entry": fitted.entry.model_dump(),
            }
            write_bytes(staging.directory / FIT_RECORD, json.dumps(record).encode())
    # Also after a fresh fit the basis is read back, so that a resumed build sees the same bits.
    record = json.loads((staging.directory / FIT_RECORD).read_bytes())
    layers = tuple(LayerEntry(**layer) for layer in record["layers"])
    settings = IndexSettings(**record["settings"])  # with the dampings that were picked
    basis = load_basis(
        staging.directory / BASIS,
        settings.model_dump(),
        [{"name": layer.name, "leader": layer.leader} for layer in layers],
    )
    return Fitted(basis, settings, layers, FitEntry(**record["entry"]))
