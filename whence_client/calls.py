"""The calls of the API: what is sent, and which type comes back. No input or output here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from service.schemas import (
    AttributeRequest,
    AttributeResult,
    BatchRequest,
    BatchResult,
    DocumentResult,
    MeasurementName,
    Ranking,
    ServiceInfo,
)
from service.sent import Addition, AdditionRequest, SentDocument

Result = TypeVar("Result", bound=BaseModel)


class Options(TypedDict, total=False):
    """What may be asked besides prompt and response; see `service.schemas.AttributeRequest`."""

    context: Sequence[Mapping[Literal["role", "content"], str]]
    top_k: int
    ranking: Ranking
    span: Mapping[Literal["start", "end"], int]
    measurement: MeasurementName
    alternative: str
    filter: Mapping[Literal["owners", "sources"], Sequence[str]]
    opponents: bool
    explain: bool
    usage: Mapping[Literal["billable", "weight"], bool | float]


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One call."""

    method: Literal["GET", "POST"]
    path: str
    result: type[Result]
    body: BaseModel | None = None
    repeatable: bool = True  # whether it may be sent again when it is not known what became of it
    headers: Mapping[str, str] = field(default_factory=dict)

    def parse(self, content: bytes) -> Result:
        """The typed result; fields that a newer server adds are left out."""
        return self.result.model_validate_json(content, extra="ignore")


def attribute(prompt: str, response: str, options: Mapping[str, Any]) -> Call[AttributeResult]:
    """`POST /attribute`; raises a `ValueError` for what breaks a bound, before it is sent."""
    fields = {"prompt": prompt, "response": response, **options}
    request = AttributeRequest.model_validate(fields)
    return Call("POST", "/attribute", AttributeResult, request)


def attribute_batch(requests: Sequence[AttributeRequest]) -> Call[BatchResult]:
    """`POST /attribute/batch`, likewise."""
    return Call("POST", "/attribute/batch", BatchResult, BatchRequest(requests=tuple(requests)))


def document(document_id: str) -> Call[DocumentResult]:
    """`GET /documents/{id}`."""
    return Call("GET", f"/documents/{quote(document_id, safe='')}", DocumentResult)


def add_documents(documents: Sequence[SentDocument], *, replace: bool) -> Call[Addition]:
    """`POST /documents`; raises a `ValueError` for what breaks a bound, before it is sent."""
    request = AdditionRequest(documents=tuple(documents), replace=replace)
    return Call("POST", "/documents", Addition, request, repeatable=False)


def addition(addition_id: str) -> Call[Addition]:
    """`GET /additions/{id}`."""
    return Call("GET", f"/additions/{quote(addition_id, safe='')}", Addition)


def attribution(request_id: str) -> Call[AttributeResult]:
    """`GET /attributions/{id}`."""
    return Call("GET", f"/attributions/{quote(request_id, safe='')}", AttributeResult)


def info() -> Call[ServiceInfo]:
    """`GET /info`."""
    return Call("GET", "/info", ServiceInfo)
