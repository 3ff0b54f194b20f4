"""The parts of a build that SOURCE does in its own way: the fit, and a pass for each checkpoint.

1. *Fit.* Projections are those of the last checkpoint. Every checkpoint then tells the curvature in
   them over the sample; checkpoints make segments, and segments make what queries and passages are
   multiplied with (`indexer.unrolled_fit`).
2. *Log.* The corpus goes once through each checkpoint. Vectors are added up on disk, shard by
   shard; the pass of the last one ends the shards as any build does. A run that was killed goes on
   at the checkpoint and the shard where it was, and processes share the shards of each checkpoint
   (`indexer.crew`).

There is no joint whitening: a score is the sum over segments itself, up to the sketch.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file, save

from indexer.checkpoints import CheckpointFolder
from indexer.corpus import locate_corpus
from indexer.crew import Claims, Crew
from indexer.fit import Fitted, fit_basis
from indexer.halving import Halving
from indexer.progress import Reporter
from indexer.running_sums import RunningSums
from indexer.segments import Exposures, Span, segments_of_stages
from indexer.shards import Logged, encode_passages, log_shards
from indexer.survey import Survey
from indexer.units import Units
from indexer.unrolled_fit import curvature_of, follow
from influence.atomic import write_bytes
from influence.basis import Basis
from influence.encoder import GradientEncoder
from influence.errors import InvalidInput
from influence.manifest import IndexSettings, TrainingEntry
from influence.staging import Staging, shard_name
from influence.tokens import Passage
from influence.versions import SHARD_RECORDS

FACTORS = f"{SHARD_RECORDS}/factors.safetensors"
TRAINING = f"{SHARD_RECORDS}/training-entry"
LOOK_EVERY_S = 0.2


class Unrolling:
    """Builds along a training.

    Args:
        folder: Its checkpoints.
        corpus: The corpus that is indexed.
        skip_bad_records: As of the build.

    Raises:
        InvalidInput: Adam without its second moments; documents without a recorded step.
    """

    def __init__(
        self, folder: CheckpointFolder, corpus: str, *, skip_bad_records: bool = False
    ) -> None:
        optimizer = folder.record.optimizer
        if optimizer.name != "sgd" and not optimizer.preconditioned:
            raise InvalidInput(
                f"The training used {optimizer.name}, whose steps depend on its second moments, "
                "and the record has none. Write them while training (docs/training.md) and record "
                "it again."
            )
        self.folder = folder
        self._checkpoints = len(folder.record.checkpoints)
        self._documents: list[str] = []
        if folder.record.data_order:
            located = locate_corpus(corpus, skip_bad_records=skip_bad_records)
            self._documents = [item.document.id for item in located]
            self.exposures([Span(1, folder.record.steps)])  # is every one recorded?

    def plan(self) -> dict[str, object]:
        """What decides the index beside corpus and settings."""
        return {
            "record": self.folder.record.model_dump(mode="json"),
            "weights": self.folder.weights_sha256(),
            "second_moments": self.folder.second_moments_sha256(),
            "data_order": self.folder.data_order_sha256(),
        }

    def exposures(self, spans: Sequence[Span]) -> Exposures:
        """How much each span saw of the documents.

        Raises:
            InvalidInput: One of them has no recorded step.
        """
        if not self.folder.record.data_order:
            return Exposures.even(spans)
        return Exposures.recorded(spans, self.folder.seen(), self._documents)

    def fit(
        self, staging: Staging, survey: Survey, settings: IndexSettings, reporter: Reporter
    ) -> Fitted:
        """The basis of the last checkpoint with the roots of SOURCE.

        Raises:
            InvalidInput: Segments that the checkpoints do not allow.
            NumericalError: As `fit_basis`; a checkpoint has diverged.
        """
        bare = settings.model_copy(update={"damping": 1.0, "joint_damping": math.inf})
        fitted = fit_basis(
            self.folder.last,
            survey.sample,
            bare,
            spool=staging.directory / "spool",
            reporter=reporter,
        )
        basis = replace(fitted.basis, joint=None)
        exposures = self._sample_exposures(survey, settings)
        total = self._checkpoints * sum(len(passage.tokens) for passage in survey.sample)
        with reporter.step("Fitting: checkpoints", total=total, unit="tokens") as advance:
            curvature = torch.stack(
                [
                    curvature_of(
                        self.folder.load(number),
                        basis,
                        survey.sample,
                        exposures[:, number],
                        settings,
                        advance,
                    )
                    for number in range(self._checkpoints)
                ]
            )
        tokens = survey.target_tokens / survey.passages
        followed = follow(self.folder, basis, curvature, settings, tokens=tokens)
        passages = followed.factors.passages.float().contiguous()
        write_bytes(staging.directory / FACTORS, save({"passages": passages}))
        write_bytes(staging.directory / TRAINING, followed.entry.model_dump_json().encode())
        layers, parts = [], followed.factors.query.split([x.coordinates for x in basis.layers])
        for layer, roots in zip(basis.layers, parts, strict=True):
            layers.append(replace(layer, roots=roots.view_as(layer.eigenvalues).float()))
        return replace(
            fitted,
            basis=replace(basis, layers=tuple(layers)),
            entry=fitted.entry.model_copy(update={"joint_rank": 0}),
        )

    def _sample_exposures(self, survey: Survey, settings: IndexSettings) -> np.ndarray:
        """How much the stage of each checkpoint saw of the sampled passages, ``[n, C]``.

        Where no stages are given, how much training did: the few steps that lead to one checkpoint
        may have seen none of the sample.
        """
        spans: list[Span] = [Span(1, self.folder.record.steps)]
        column = [0] * self._checkpoints
        if settings.segments == "stages":
            stages = segments_of_stages(self.folder.record)
            spans = [Span(stage.first, stage.last) for stage in stages]
            for number, stage in enumerate(stages):
                for checkpoint in stage.checkpoints:
                    column[checkpoint] = number
        documents = [passage.document_id for passage in survey.sample]
        return self.exposures(spans).of(documents)[:, column]

    def entry(self, staging: Staging) -> TrainingEntry:
        """What the manifest says, after `fit`."""
        return TrainingEntry.model_validate_json((staging.directory / TRAINING).read_bytes())

    def log(
        self,
        staging: Staging,
        basis: Basis,
        units: Units,
        survey: Survey,
        settings: IndexSettings,
        reporter: Reporter,
        crew: Crew,
    ) -> Logged:
        """Every passage through every checkpoint, and from the last one the shards.

        Args:
            staging: The build.
            basis: What `fit` gave.
            units: The passages of each shard.
            survey: Of the corpus.
            settings: Sizes of batches.
            reporter: Told how far the work is.
            crew: This process among those of the build.
        """
        passes = _Passes(self, staging, basis, units, settings)
        for number in range(self._checkpoints - 1):
            passes.add(number, survey.tokens, reporter, crew)
        last = self._checkpoints - 1

        def finish(shard: int, passages: Sequence[Passage], vectors: np.ndarray) -> np.ndarray:
            own = passes.weighted(last, passages, vectors)
            earlier = passes.sums.of(shard)
            return own if earlier is None else earlier + own

        what = f"Logging gradients, checkpoint {last + 1} of {last + 1}"
        with reporter.step(what, total=survey.tokens, unit="tokens") as advance:
            return log_shards(staging, passes.encoder(last), units, settings, advance, crew, finish)

    def spans(self, entry: TrainingEntry) -> tuple[list[Span], list[int]]:
        """The segments, and for each checkpoint the number of its own."""
        spans = [Span(segment.first_step, segment.last_step) for segment in entry.segments]
        of_step = {step: n for n, s in enumerate(entry.segments) for step in s.checkpoints}
        return spans, [of_step[checkpoint.step] for checkpoint in self.folder.record.checkpoints]


class _Passes:
    """The corpus through one checkpoint after the other."""

    def __init__(
        self,
        unrolling: Unrolling,
        staging: Staging,
        basis: Basis,
        units: Units,
        settings: IndexSettings,
    ) -> None:
        self.sums = RunningSums(staging.directory / SHARD_RECORDS)
        self._unrolling = unrolling
        self._staging = staging
        self._basis = basis
        self._units = units
        self._settings = settings
        self._spans, self._segment_of = unrolling.spans(unrolling.entry(staging))
        self._exposures = unrolling.exposures(self._spans)
        self._factors = load_file(staging.directory / FACTORS)["passages"]  # [L, K]

    def encoder(self, checkpoint: int) -> GradientEncoder:
        """Gradients at a checkpoint, as its segment weighs them."""
        segment = self._segment_of[checkpoint]
        factor = self._factors[segment] / self._segment_of.count(segment)
        parts = factor.split([layer.coordinates for layer in self._basis.layers])
        layers = tuple(
            replace(layer, roots=part.view_as(layer.eigenvalues))
            for layer, part in zip(self._basis.layers, parts, strict=True)
        )
        loaded = self._unrolling.folder.load(checkpoint)
        return GradientEncoder(loaded, replace(self._basis, layers=layers))

    def weighted(
        self, checkpoint: int, passages: Sequence[Passage], vectors: np.ndarray
    ) -> np.ndarray:
        """Vectors times how much the checkpoint's segment saw of their documents."""
        documents = [passage.document_id for passage in passages]
        seen = self._exposures.of(documents)
        weight = seen[:, self._segment_of[checkpoint], None].astype(np.float32)
        return np.where(weight > 0, vectors * weight, np.float32(0))

    def add(self, checkpoint: int, tokens: int, reporter: Reporter, crew: Crew) -> None:
        """Add the vectors of a checkpoint to every shard's sum, together with the crew."""
        what = f"Logging gradients, checkpoint {checkpoint + 1} of {len(self._segment_of)}"
        if not self._missing(checkpoint):
            return
        encoder, halving = self.encoder(checkpoint), Halving()
        folder = self._staging.directory / SHARD_RECORDS
        with reporter.step(what, total=tokens, unit="tokens") as advance, Claims(folder) as claims:

            def work(candidates: set[int]) -> None:
                def claimed(number: int) -> bool:
                    if number not in candidates or not claims.take(shard_name(number)):
                        return False
                    if self.sums.reaches(number, checkpoint):
                        claims.release(shard_name(number))
                        return False
                    return True

                for number, items in self._units.chosen(claimed):
                    passages = [item.passage for item in items]
                    encoded = encode_passages(encoder, passages, self._settings, halving, advance)
                    vectors = self.weighted(checkpoint, passages, encoded.vectors)
                    self.sums.add(number, checkpoint, vectors)
                    claims.release(shard_name(number))

            work(set(crew.own(len(self._units))))
            while missing := self._missing(checkpoint):
                if any(claims.is_free(shard_name(number)) for number in missing):
                    work(set(missing))
                else:
                    time.sleep(LOOK_EVERY_S)

    def _missing(self, checkpoint: int) -> list[int]:
        return [n for n in range(len(self._units)) if not self.sums.reaches(n, checkpoint)]
