"""`manifest.json`: what an index was built from, what it holds, and the sha256 of every file.

It carries every setting that changes a score and nothing that only changes a deployment, and no
time or host: the same inputs give the same bytes. What was measured has the day it was measured on.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from influence.atomic import file_sha256
from influence.errors import IndexCorrupt, IndexTooNew

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_RESTORE = "Restore it from a backup, or build the index again."


class _Frozen(BaseModel):
    # JSON has no infinity; within a model the setting of the outermost one counts.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ModelIdentity(_Frozen):
    """The model whose gradients these are."""

    name: str
    weights_sha256: str
    tokenizer_sha256: str
    dtype: Literal["float32", "bfloat16"] = Field(description="Precision of the matrix products.")


class CorpusIdentity(_Frozen):
    """The corpus, counted."""

    name: str
    fingerprint: str = Field(description="sha256 over the documents in their order.")
    documents: int
    passages: int
    tokens: int
    target_tokens: int = Field(description="Tokens that carry loss.")


Hessian = Literal["ekfac", "kfac", "raw", "identity"]
Projection = Literal["pca", "random"]
Labels = Literal["empirical", "sampled"]
Target = Literal["auto", "all", "adapter", "base"]
Method = Literal["influence", "source"]


FEW_GB = 4 * 2**30
DIMS = 16_384  # weak queries are told apart better than at 4,096
DIMS_OF_MANY = 4_096


def dims_for(passages: int) -> int:
    """``D`` where nobody chose it: 16,384 while fp16 vectors stay within 4 GiB, else 4,096."""
    return DIMS if passages * DIMS * 2 <= FEW_GB else DIMS_OF_MANY


class IndexSettings(_Frozen):
    """Every setting that changes a score."""

    rank: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        64, description="Projected width of each side of each layer; auto: chosen layer by layer."
    )
    rank_budget: int = Field(
        64, ge=1, description="With rank auto: the rank in every layer whose cost is spent."
    )
    dims: Annotated[int, Field(ge=8)] | Literal["auto"] = Field(
        "auto",
        description="Numbers of a stored vector; auto: by the number of passages (`dims_for`). A "
        "published index has a number.",
    )
    method: Method = Field(
        "influence",
        description="influence: of the trained model; source: along its training, by its "
        "checkpoints, with no damping (`influence.unrolled`).",
    )
    segments: Annotated[int, Field(ge=1)] | Literal["stages"] | None = Field(
        None, description="Of training, for SOURCE: how many, or those that the record names."
    )
    hessian: Hessian = "ekfac"
    projection: Projection = "pca"
    labels: Labels = Field("empirical", description="Tokens whose gradients fit the curvature.")
    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        0.1, description="c: fraction of a layer's mean eigenvalue. A published index has a number."
    )
    joint_damping: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        1.0, description="c₂; infinity: no joint whitening. A published index has a number."
    )
    layers: tuple[str, ...] = Field(("*",), description="Patterns of the attributed layers.")
    target: Target = Field(
        "auto", description="With PEFT adapters: adapter, base or all; auto: adapter, if any."
    )
    max_length: int = Field(512, ge=2, description="Most tokens of a passage.")
    seed: int = 0
    fit_passages: int = Field(320, ge=1, description="Sampled passages for the curvature.")
    fit_tokens: int = Field(16_384, ge=1, description="Tokens of these for the covariances.")
    batch_tokens: int = Field(1024, ge=1, description="Tokens of a batch, padding included.")
    shard_passages: int = Field(512, ge=1, description="Rows of a shard, the unit of resuming.")
    null_queries: int = Field(
        64, ge=0, description="Null answers of each kind that calibrate confidence; 0: off."
    )

    @model_validator(mode="after")
    def _random_projections_have_no_spectra(self) -> Self:
        for name, value in (("hessian", self.hessian), ("rank", self.rank)):
            if self.projection == "random" and value in ("kfac", "auto"):
                raise ValueError(
                    f"{name} {value} needs the spectra of the covariances, and projection random "
                    "fits none. Use projection pca, or another "
                    + ("curvature, such as raw." if name == "hessian" else "rank, such as 64.")
                )
        return self

    @model_validator(mode="after")
    def _source_follows_training(self) -> Self:
        if (self.method == "source") != (self.segments is not None):
            raise ValueError(
                f"method {self.method} and segments {self.segments} do not go together. Segments "
                "are those of source, which needs them."
            )
        if self.method == "source" and (self.hessian, self.projection) != ("ekfac", "pca"):
            raise ValueError(
                f"source measures the curvature of each segment in the eigenbasis of the last, "
                f"and not hessian {self.hessian} with projection {self.projection}. Leave both."
            )
        return self


class LayerEntry(_Frozen):
    """One attributed layer of the basis."""

    name: str
    leader: str = Field(description="First layer that reads the same input; owns the stored P_in.")
    d_in: int
    d_out: int
    r_in: int
    r_out: int
    share_kept_in: float = Field(
        description="Of the trace of E[a aᵀ], by the kept subspace; of a random one as expected."
    )
    share_kept_out: float = Field(description="Of the trace of E[g gᵀ], likewise.")


class CoverageEntry(_Frozen):
    """What is attributed and what is not (`influence.layers.Coverage`)."""

    share_of_linear: float
    share_of_all: float
    left_out: dict[str, int]


class FitEntry(_Frozen):
    """What the curvature was fitted on."""

    passages: int
    covariance_passages: int
    covariance_tokens: int
    share_of_curvature: float = Field(
        description="Trace-weighted share of Kronecker curvature that the ranks keep."
    )
    joint_rank: int = Field(description="Rank of the joint covariance; 0 where it is off.")
    outside_share: float | None = Field(
        default=None, description="Of the sample's gradient energy outside the kept coordinates."
    )
    picked: dict[str, str] = Field(
        default_factory=dict, description="For each setting that was auto, its value and how."
    )


class Calibration(_Frozen):
    """Best robust z-scores of answers that come from no document, sorted (`influence.noise`)."""

    null_best_z: tuple[float, ...] = ()
    null_opponent_z: tuple[float, ...] = Field(
        default=(), description="Those of the strongest opponents, likewise."
    )
    null_quantiles: dict[str, float] = Field(
        default_factory=dict,
        description="For each kind of null answer the .95 quantile of its best z-scores.",
    )


class Quality(_Frozen):
    """How good the ranking of an index is, by one measure.

    It belongs to one version: whatever changes scores or adds documents drops it.
    """

    measure: str = Field(
        min_length=1, description="What was measured.", examples=["recall@10", "tail_patch", "lds"]
    )
    value: float = Field(allow_inf_nan=False, description="Mean over the queries.", examples=[0.93])
    low: float = Field(allow_inf_nan=False, description="Of its 95 % interval.", examples=[0.89])
    high: float = Field(allow_inf_nan=False, description="Of its 95 % interval.", examples=[0.96])
    protocol: str = Field(
        min_length=1,
        description="How it was measured, for people.",
        examples=["240 queries whose document is known, by relative influence; BM25: 0.95"],
    )
    date: datetime.date = Field(description="When it was measured.", examples=["2026-11-24"])

    @model_validator(mode="after")
    def _within(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"{self.measure} is {self.value:g}, outside its interval from {self.low:g} to "
                f"{self.high:g}."
            )
        return self


class SegmentEntry(_Frozen):
    """A stretch of training that SOURCE takes as one."""

    name: str
    first_step: int
    last_step: int
    checkpoints: tuple[int, ...] = Field(description="Steps of those it is known by.")
    learning_rate: float = Field(description="Mean over its steps, as it was set.")
    length: float = Field(
        description="Sum of its learning rates, with momentum, in units of the mean loss of a "
        "passage; with a preconditioner its mean over coordinates."
    )
    curvature: float = Field(description="Mean eigenvalue, weight decay included.")
    kept: float = Field(
        description="Share of a unit gradient that later segments leave, mean over coordinates."
    )


class TrainingEntry(_Frozen):
    """The training that an index of SOURCE follows."""

    optimizer: str
    momentum: float
    weight_decay: float
    preconditioned: bool
    batch_size: int
    averaged: str
    steps: int
    segments: tuple[SegmentEntry, ...]
    checkpoints: dict[str, str] = Field(description="sha256 of each one's weights, by its step.")
    data_order_sha256: str | None = None


class Change(_Frozen):
    """How a version came from the one before it."""

    kind: Literal["added", "removed", "compacted", "redamped", "refitted", "repaired", "measured"]
    parent: str = Field(description="Version that was changed.")
    documents: int = Field(default=0, description="Documents added or removed.")
    passages: int = Field(default=0, description="Passages added or removed.")
    corpus: CorpusIdentity | None = Field(default=None, description="What was added.")
    outside_share: float | None = Field(
        default=None, description="Of its gradient energy, outside the kept coordinates (drift)."
    )


class Shard(_Frozen):
    """A run of rows under one number."""

    name: str
    rows: int


class FileEntry(_Frozen):
    """Size and content of one file of the version."""

    size_bytes: int
    sha256: str


class Manifest(_Frozen):
    """See the module."""

    format_version: int = FORMAT_VERSION
    plan_sha256: str = Field(description="Of everything that decides the bytes of this index.")
    model: ModelIdentity
    corpus: CorpusIdentity
    settings: IndexSettings
    vector_dims: int = Field(description="Numbers of a stored vector: min(dims, coordinates).")
    coordinates: int = Field(description="Projected coordinates before the sketch.")
    sketch_noise: float = Field(description="What the sketch adds to a cosine; 0: not sketched.")
    rows: int = Field(description="Rows stored, those removed since the last compaction included.")
    removed_rows: int = Field(default=0, description="Of these, rows that readers do not see.")
    shards: tuple[Shard, ...]
    layers: tuple[LayerEntry, ...]
    coverage: CoverageEntry
    fit: FitEntry
    training: TrainingEntry | None = Field(default=None, description="Of method source.")
    left_out_passages: tuple[str, ...] = Field(
        (), description="Passages without a usable gradient, and why."
    )
    padding_share: float = Field(0.0, description="Share of the computed tokens that was padding.")
    history: tuple[Change, ...] = Field(
        default=(),
        description="Changes since the corpus was indexed; each redamping rounds fp16 once more.",
    )
    calibration: Calibration = Calibration()
    quality: tuple[Quality, ...] = Field(default=(), description="Measured; empty: not measured.")
    files: dict[str, FileEntry]

    @model_validator(mode="before")
    @classmethod
    def _without_what_nothing_filled(cls, raw: Any) -> Any:
        """Manifests of before there was `quality` have an empty ``measured``."""
        if isinstance(raw, dict) and raw.get("measured") == {}:
            return {key: value for key, value in raw.items() if key != "measured"}
        return raw

    @property
    def is_sketched(self) -> bool:
        """Whether the vectors hold sums of coordinates rather than coordinates."""
        return self.sketch_noise > 0

    def to_bytes(self) -> bytes:
        """The bytes of `manifest.json`."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def plan_sha256(plan: Mapping[str, Any]) -> str:
    """Names a plan: everything that decides the bytes of an index."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Parse a manifest.

    Raises:
        IndexTooNew: Written by a newer format.
        IndexCorrupt: Missing, or not a manifest.
    """
    try:
        raw = json.loads(path.read_bytes())
        version = raw["format_version"]
        if version < FORMAT_VERSION:
            raise IndexCorrupt(
                f"{path} has format version {version}, of a development version of Whence, and "
                f"this program reads {FORMAT_VERSION}. Build the index again."
            )
        if version > FORMAT_VERSION:
            raise IndexTooNew(
                f"{path} has format version {version}, and this program reads up to "
                f"{FORMAT_VERSION}. Upgrade Whence, or build the index again with this version."
            )
        return Manifest.model_validate(raw)
    except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
        raise IndexCorrupt(
            f"{path} is missing or is no manifest ({type(error).__name__}). {_RESTORE}"
        ) from error


def check_sizes(directory: Path, manifest: Manifest) -> None:
    """See that every file of a version is there in its full size.

    Raises:
        IndexCorrupt: One is not; the message names it.
    """
    for name, entry in manifest.files.items():
        path = directory / name
        found = path.stat().st_size if path.is_file() else None
        if found != entry.size_bytes:
            state = "is missing" if found is None else f"has {found} bytes"
            raise IndexCorrupt(
                f"{path} {state}, and the manifest says {entry.size_bytes} bytes. {_RESTORE}"
            )


def check_files(directory: Path, manifest: Manifest) -> None:
    """Hash every file of a version, after `check_sizes`.

    Raises:
        IndexCorrupt: One is missing, truncated or altered; the message names it.
    """
    check_sizes(directory, manifest)
    for name, entry in manifest.files.items():
        path = directory / name
        if file_sha256(path) != entry.sha256:
            raise IndexCorrupt(
                f"{path} was altered: its sha256 is not that of the manifest. {_RESTORE}"
            )
