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


def info() -> Call[ServiceInfo]:
    """`GET /info`."""
    return Call("GET", "/info", ServiceInfo)
