"""The requests and answers of the service, shared by HTTP API, command line and engine.

Bounds are in the types. What a field means is in its description, which is also what the generated
OpenAPI document says. Importing this module loads neither torch nor faiss.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from influence.manifest import Method, Quality
from service.context import Context
from service.parts import HitExplanation, TokenInfluence
from service.problem import Problem
from service.usage import Usage

MAX_CHARACTERS = 200_000  # of a prompt or a response
MAX_FILTER_VALUES = 1_000
MAX_BATCH_ITEMS = 32

NOTHING_STANDS_OUT = (
    "No indexed document stands out for this answer; it most likely comes from data outside this "
    "index."
)
NOTHING_STANDS_OUT_IN_FILTER = (
    "None of the documents that the filter admits stands out for this answer."
)

Ranking = Literal["relative", "influence"]
MeasurementName = Literal["loss", "log_prob", "margin", "contrast"]
Name = Annotated[str, Field(min_length=1, max_length=1_000)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(_Schema):
    """Characters [start, end) of the response."""

    start: int = Field(ge=0, strict=True, description="First character.", examples=[4])
    end: int = Field(ge=1, strict=True, description="One past the last character.", examples=[15])

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Span":
        if self.end <= self.start:
            raise ValueError(f"the span {self.start} to {self.end} is empty; end must be above")
        return self


class Filter(_Schema):
    """Restricts proponents and opponents; a document must pass every list that is given."""

    owners: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_FILTER_VALUES,
        description="Only documents of these owners.",
        examples=[["Egypt", "Canada"]],
    )
    sources: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_FILTER_VALUES,
        description="Only documents from these sources.",
        examples=[["CIA World Factbook"]],
    )

    @model_validator(mode="after")
    def _restricts(self) -> "Filter":
        if self.owners is None and self.sources is None:
            raise ValueError("an empty filter; give owners, sources, or no filter at all")
        return self


class AttributeRequest(_Schema):
    """A prompt and the response to explain."""

    prompt: str = Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="What the model was asked.",
        examples=["How many people live in Egypt?"],
    )
    response: str = Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="The answer to attribute, exactly as the model gave it.",
        examples=["The population of Egypt is 111,247,248."],
    )
    context: Context = None
    top_k: int = Field(
        default=10,
        ge=1,
        le=100,
        strict=True,
        description="Passages on each side; an index with fewer gives all it has.",
        examples=[10],
    )
    ranking: Ranking = Field(
        default="relative",
        description=(
            "relative: by the cosine of the two gradients; influence: by their inner product in "
            "nats, which a few passages of huge norm can rule."
        ),
        examples=["relative"],
    )
    span: Span | None = Field(
        default=None,
        description="Explain only these characters of the response; all of it by default.",
        examples=[{"start": 4, "end": 15}],
    )
    measurement: MeasurementName = Field(
        default="loss",
        description=(
            "The number that is explained. loss: negative log-likelihood of the response; "
            "log_prob: its log-likelihood, of the same influences; margin: log p - log(1 - p); "
            "contrast: log-likelihood of the response minus that of the alternative, so that what "
            "made both likely drops out."
        ),
        examples=["loss"],
    )
    alternative: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CHARACTERS,
        description=(
            "For contrast: the response rather than which this one was given. With a span: the "
            "response with only the span replaced."
        ),
        examples=[None, "The population of Egypt is 40,000,000."],
    )
    filter: Filter | None = Field(
        default=None,
        description="Compare only with some documents.",
        examples=[{"owners": ["Egypt"]}],
    )
    opponents: bool = Field(
        default=True,
        strict=True,
        description="Also return the passages that made the response less likely.",
        examples=[True],
    )
    explain: bool = Field(
        default=False,
        strict=True,
        description=(
            "Also split the influence of every hit over its tokens, the tokens of the response and "
            "the layers of the model; costs a forward and a backward pass over the hits."
        ),
        examples=[False],
    )
    usage: Usage | None = Field(
        default=None,
        description="Its weight in the ledger; by default its explained tokens, and not billable.",
        examples=[{"billable": True, "weight": 0.002}],
    )

    @model_validator(mode="after")
    def _contrast_has_an_alternative(self) -> "AttributeRequest":
        if self.measurement == "contrast" and self.alternative is None:
            raise ValueError("the measurement contrast needs an alternative to compare with")
        if self.measurement != "contrast" and self.alternative is not None:
            raise ValueError(
                f"the measurement {self.measurement} has no use for an alternative; choose "
                "contrast, or leave the alternative out"
            )
        if self.alternative == self.response:
            raise ValueError("the alternative is the response itself; give a different one")
        return self


class IndexReference(_Schema):
    """The index that answered."""

    id: str = Field(description="Name of the index.", examples=["demo"])
    version: str = Field(description="Its version.", examples=["000001-0f3a9c5d7e21"])
    exact: bool = Field(description="Whether every row was compared.", examples=[True])


class QueryFacts(_Schema):
    """What is known of the answer as a whole."""

    tokens: int = Field(description="Tokens of the response that are explained.", examples=[17])
    loss_nats: float = Field(
        description="Negative log-likelihood of these tokens, summed, in nats.", examples=[21.4]
    )
    measurement: MeasurementName = Field(description="What is explained.", examples=["loss"])
    value: float = Field(description="Its value, in nats.", examples=[21.4])
    stands_out: bool = Field(
        description="Whether the best passage stands out of the index, at a confidence of .95.",
        examples=[True],
    )
    message: str | None = Field(
        description="What to tell people where nothing stands out; null otherwise.",
        examples=[None, NOTHING_STANDS_OUT],
    )


class Hit(_Schema):
    """One passage and its influence on the answer."""

    rank: int = Field(ge=1, description="1 is the strongest.", examples=[1])
    document_id: str = Field(description="Id of the document.", examples=["factbook/egypt"])
    passage_id: str = Field(description="Id of the passage.", examples=["factbook/egypt#0"])
    influence: float = Field(
        description=(
            "Nats of loss per unit weight on the passage. Positive: training on it made the "
            "answer more likely; negative: less likely."
        ),
        examples=[812.5],
    )
    relative_influence: float = Field(
        description="Influence over the norms of both gradients: a cosine in [-1, 1].",
        examples=[0.314],
    )
    confidence: float = Field(
        ge=0,
        le=1,
        description=(
            "Probability that the best score of an index without any related document stays below "
            "this one."
        ),
        examples=[0.998],
    )
    title: str | None = Field(description="Title of the document.", examples=["Egypt: People"])
    source: str | None = Field(
        description="Where the document is from.", examples=["CIA World Factbook"]
    )
    owner: str | None = Field(description="Who owns it.", examples=["Egypt"])
    licence: str | None = Field(description="Its licence.", examples=["US government work"])
    url: str | None = Field(description="Its address.", examples=["https://example.org/egypt"])
    text: str = Field(
        description="Text of the passage.", examples=["The population of Egypt is 111,247,248."]
    )
    withheld: bool = Field(
        default=False,
        description="Whether the operator withholds text and title; the scores are as they were.",
        examples=[False],
    )
    start: int = Field(description="First character of the passage in the document.", examples=[0])
    end: int = Field(description="One past its last character in the document.", examples=[39])
    tokens: tuple[TokenInfluence, ...] | None = Field(
        default=None,
        description=(
            "Where the influence sits in the document: at the words that were learnt; characters "
            "of the document. Null unless explain was asked for."
        ),
        examples=[None, [{"start": 24, "end": 31, "influence": 3.2}]],
    )
    explanation: HitExplanation | None = Field(
        default=None, description="The influence in other parts; null unless asked for."
    )


class OwnerShare(_Schema):
    """The influence of everything one owner has in the index."""

    owner: str | None = Field(
        description="The owner; null: documents without one.", examples=["Egypt"]
    )
    influence: float = Field(
        description=(
            "Sum of the influences of all the owner's passages, in nats; exact, with no top-k cut, "
            "and over the whole index whatever the filter."
        ),
        examples=[942.6],
    )
    share: float = Field(
        ge=0,
        le=1,
        description="The owner's part of all positive totals; 0 where the total is not positive.",
        examples=[0.412],
    )


class Timings(_Schema):
    """Where the time went, in milliseconds."""

    queue: float = Field(description="Waiting for the model to be free.", examples=[0.2])
    gradient: float = Field(description="Tokens, forward and backward pass.", examples=[412.0])
    search: float = Field(description="Comparing with the index.", examples=[6.1])
    fetch: float = Field(description="Reading texts.", examples=[2.3])
    explain: float = Field(
        default=0.0, description="Splitting the influences of the hits; 0: not asked.", examples=[0]
    )


class AttributeResult(_Schema):
    """The training passages that most influenced a response."""

    request_id: str = Field(description="Also in X-Request-Id.", examples=["9f8c2a"])
    model: str = Field(description="The model whose gradients these are.", examples=["SmolLM2"])
    index: IndexReference
    query: QueryFacts
    proponents: tuple[Hit, ...] = Field(description="Highest scores first.")
    opponents: tuple[Hit, ...] = Field(description="Lowest scores first; empty if not asked for.")
    owners: tuple[OwnerShare, ...] = Field(description="All owners, highest influence first.")
    timings_ms: Timings
    cached: bool = Field(description="Whether this answer was computed before.", examples=[False])


class PassageReference(_Schema):
    """A passage of a document."""

    id: str = Field(description="Id of the passage.", examples=["factbook/egypt#0"])
    start: int = Field(description="First character in the document.", examples=[0])
    end: int = Field(description="One past its last character.", examples=[39])


class DocumentResult(_Schema):
    """A document as it was indexed."""

    id: str = Field(description="Id of the document.", examples=["factbook/egypt"])
    text: str = Field(description="Its text.", examples=["The population of Egypt is 111,247,248."])
    title: str | None = Field(description="Its title.", examples=["Egypt: People"])
    source: str | None = Field(description="Where it is from.", examples=["CIA World Factbook"])
    owner: str | None = Field(description="Who owns it.", examples=["Egypt"])
    licence: str | None = Field(description="Its licence.", examples=["US government work"])
    url: str | None = Field(description="Its address.", examples=["https://example.org/egypt"])
    metadata: dict[str, Any] = Field(
        description="What else the corpus says of it.", examples=[{"section": "People"}]
    )
    withheld: bool = Field(
        default=False,
        description="Whether the operator withholds its text and description.",
        examples=[False],
    )
    passages: tuple[PassageReference, ...] = Field(description="Its rows of the index, in order.")


class IndexFacts(IndexReference):
    """What the index holds."""

    documents: int = Field(description="Number of documents.", examples=[412])
    passages: int = Field(description="Number of passages, the rows.", examples=[518])
    owners: int = Field(description="Number of owners.", examples=[45])
    dims: int = Field(description="Numbers of a stored vector.", examples=[16384])
    search: str = Field(description="How vectors are searched.", examples=["float32"])
    search_recall: float | None = Field(
        default=None, description="Measured recall@10; null: all rows compared.", examples=[0.993]
    )
    search_notice: str | None = Field(
        default=None, description="Why it is not the way asked for; else null.", examples=[None]
    )
    method: Method = Field(
        default="influence",
        description="influence: of the trained model; source: along its training.",
        examples=["influence"],
    )
    quality: tuple[Quality, ...] = Field(default=(), description="What was measured of it.")


class ServiceInfo(_Schema):
    """What is being served."""

    version: str = Field(description="Version of Whence.", examples=["0.1.0"])
    model: str = Field(description="The model whose gradients these are.", examples=["SmolLM2"])
    dtype: str = Field(description="Precision of its matrix products.", examples=["float32"])
    context_length: int = Field(
        description="Most tokens of prompt and response together.", examples=[8192]
    )
    index: IndexFacts
    expected_ms: float | None = Field(
        default=None, description="Median of recent attributions; null: none.", examples=[812.0]
    )
    settings: dict[str, bool | int | float] = Field(
        default_factory=dict,
        description="Numbers and switches of the deployment; names and folders are not told.",
        examples=[{"queue_size": 32}],
    )


class BatchRequest(_Schema):
    """Several responses to explain."""

    requests: tuple[AttributeRequest, ...] = Field(
        min_length=1,
        max_length=MAX_BATCH_ITEMS,
        description="Each as `POST /attribute` takes it, and within the same limits.",
    )


class BatchItem(_Schema):
    """What became of one of them: an answer or a problem."""

    result: AttributeResult | None = Field(
        default=None, description="The answer, as of `POST /attribute`; null where it failed."
    )
    problem: Problem | None = Field(default=None, description="Why it failed; null: it did not.")


class BatchResult(_Schema):
    """What became of each, in the order of the requests."""

    request_id: str = Field(
        description="Also in X-Request-Id; that of an item has its number behind it.",
        examples=["9f8c2a"],
    )
    items: tuple[BatchItem, ...] = Field(description="One for each request.")
