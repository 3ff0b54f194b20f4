"""Add documents to an index: only they go through the model, and everything else stays as it is.

Basis, dampings and every other setting are those of the index, so that old and new rows can be
compared. Whether the basis still suits the corpus is measured (`influence.drift`).
"""

import logging
from pathlib import Path

from indexer.build import BASIS, surveyed_units
from indexer.calibration import calibrate
from indexer.corpus import locate_corpus
from indexer.drift import DRIFT_PASSAGES, has_drifted, mean_outside_share
from indexer.progress import Reporter
from indexer.shards import Logged, log_shards
from indexer.survey import Survey, survey_corpus
from influence.addition import append_shards
from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.errors import BuildConflict, CorpusError, InvalidInput, NumericalError
from influence.lock import changing, sole_writer
from influence.manifest import FORMAT_VERSION, Calibration, CorpusIdentity, Manifest
from influence.model import LoadedModel
from influence.staging import Staging
from influence.store import IndexReader, check_built_from

log = logging.getLogger(__name__)

CALIBRATION_LIMIT = 0.1  # share of new rows beyond which confidence is calibrated again
_NAMED = 5  # of the ids that are there already, so many are named


def add_corpus(
    corpus: str,
    loaded: LoadedModel,
    index_dir: Path,
    *,
    reporter: Reporter,
    replace: bool = False,
    skip_bad_records: bool = False,
    restart: bool = False,
) -> str:
    """Add the documents of a corpus, or continue after a run that was interrupted.

    Args:
        corpus: A file, a folder or a dataset (`indexer.corpus.read_corpus`).
        loaded: The model of the index.
        index_dir: The index.
        reporter: Told how far the work is, and how far the basis has drifted.
        replace: Documents take the place of those of the same id, instead of being refused.
        skip_bad_records: Count and skip records that cannot be read, instead of stopping.
        restart: Throw away unfinished work in the folder.

    Returns:
        The name of the published version.

    Raises:
        IndexMismatch: The index was built from another model or tokenizer.
        InvalidInput: It was built in another precision.
        CorpusError: The corpus cannot be read, or has ids that the index has.
        BuildConflict: The folder holds unfinished work of another kind.
        IndexBusy: Another process is writing to the index.
        NumericalError: No passage has a usable gradient.
    """
    with sole_writer(index_dir):
        reader = IndexReader.open(index_dir)
        manifest = reader.manifest
        _check_model(reader, loaded)
        survey = survey_corpus(
            corpus,
            loaded.tokenizer,
            max_length=manifest.settings.max_length,
            fit_passages=DRIFT_PASSAGES,
            shard_passages=manifest.settings.shard_passages,
            seed=manifest.settings.seed,
            skip_bad_records=skip_bad_records,
            reporter=reporter,
        )
        identity = survey.identity(Path(corpus).name)
        plan = {
            "format_version": FORMAT_VERSION,
            "added_to_basis": manifest.files[BASIS].sha256,
            "model": manifest.model.model_dump(),
            "corpus": identity.model_dump(),
            "settings": manifest.settings.model_dump(mode="json"),
        }
        if manifest.history and manifest.history[-1].corpus == identity:
            Staging.discard(index_dir, plan)
            reporter.note(f"This very corpus was added last: version {reader.version}.")
            return reader.version
        if not replace:
            _check_ids(reader, corpus, skip_bad_records=skip_bad_records)
        staging = Staging.open(index_dir, plan, restart=restart)
        encoder = GradientEncoder(loaded, basis_of(reader))
        units = surveyed_units(
            corpus, loaded, survey, manifest.settings, skip_bad_records=skip_bad_records
        )
        with reporter.step("Logging gradients", total=survey.tokens, unit="tokens") as advance:
            logged = log_shards(staging, encoder, units, manifest.settings, advance)
        if not sum(shard.rows for shard in logged.shards):
            raise NumericalError(
                f"None of the {survey.passages} passages has a usable gradient; "
                f"{'; '.join(logged.left_out[:3])}. Check that the model's weights are finite."
            )
        outside = _told_drift(encoder, survey, manifest, reporter)
        calibration = _calibration(staging, encoder, survey, logged, reader, reporter)
        version = _publish(staging, logged, identity, manifest, outside, calibration)
        Staging.discard(index_dir, plan)
    reporter.note(
        f"Published version {version}: {sum(shard.rows for shard in logged.shards)} passages of "
        f"{survey.documents} documents were added."
    )
    return version


def _publish(
    staging: Staging,
    logged: Logged,
    corpus: CorpusIdentity,
    manifest: Manifest,
    outside: float | None,
    calibration: Calibration,
) -> str:
    """Append the shards to what is current by now: documents may have been removed meanwhile."""
    with changing(staging.index_dir):
        current = IndexReader.open(staging.index_dir)
        if current.manifest.files[BASIS].sha256 != manifest.files[BASIS].sha256:
            raise BuildConflict(
                f"{staging.index_dir} was taken to version {current.version}, which has another "
                "basis, while documents were added to it. Run the same command with --restart."
            )
        return append_shards(
            current,
            staging.directory,
            logged.shards,
            corpus,
            outside_share=outside,
            left_out_passages=(*current.manifest.left_out_passages, *logged.left_out),
            calibration=calibration,
        )


def _calibration(
    staging: Staging,
    encoder: GradientEncoder,
    survey: Survey,
    logged: Logged,
    reader: IndexReader,
    reporter: Reporter,
) -> Calibration:
    """That of the index, measured again where it has grown by more than a little."""
    rows = sum(shard.rows for shard in logged.shards)
    before = reader.manifest.calibration
    if rows <= CALIBRATION_LIMIT * len(reader) or not before.null_best_z:
        return before
    return calibrate(
        encoder,
        [passage.tokens for passage in survey.sample],
        [*reader.vector_shards(), *staging.vectors(logged.shards)],
        reader.manifest.settings,
        reporter=reporter,
    )


def _told_drift(
    encoder: GradientEncoder, survey: Survey, manifest: Manifest, reporter: Reporter
) -> float | None:
    """Measure the drift, say it, and advise to refit where it is large."""
    outside = mean_outside_share(encoder.task, encoder.basis, survey.sample, manifest.settings)
    fitted = manifest.fit.outside_share
    if outside is None or fitted is None:
        return outside
    reporter.note(
        f"Drift: {outside:.1%} of the new passages' gradient energy lies outside the basis, and "
        f"{fitted:.1%} of its own sample's."
    )
    if has_drifted(outside, fitted):
        log.warning(
            "the basis was fitted on other texts than these, and misses more of them (%.1f %% "
            "against %.1f %%): their scores are too low. Run whence refit.",
            100 * outside,
            100 * fitted,
        )
    return outside


def _check_model(reader: IndexReader, loaded: LoadedModel) -> None:
    built = reader.manifest.model
    check_built_from(reader, loaded)
    if reader.manifest.settings.method == "source":
        raise InvalidInput(
            f"The index in {reader.index_dir} follows a training (SOURCE), and documents that this "
            "training never saw have no part in it. Index them beside it, or train on them and "
            "build the index again."
        )
    dtype = "bfloat16" if loaded.dtype == "bfloat16" else "float32"
    if dtype != built.dtype:
        raise InvalidInput(
            f"The index in {reader.index_dir} was built in {built.dtype} and the model was loaded "
            f"in {dtype}, so old and new rows could not be compared. Give --dtype {built.dtype}."
        )


def _check_ids(reader: IndexReader, corpus: str, *, skip_bad_records: bool) -> None:
    there = set(reader.document_ids())
    located = locate_corpus(corpus, skip_bad_records=skip_bad_records)
    again = [item for item in located if item.document.id in there]
    if again:
        named = "; ".join(f"{item.document.id!r} ({item.where})" for item in again[:_NAMED])
        raise CorpusError(
            f"{len(again)} documents of {corpus} have ids that {reader.index_dir} has already: "
            f"{named}{'; …' if len(again) > _NAMED else ''}. Give --replace to put them in the "
            "place of those, or give them other ids."
        )
