"""OpenTelemetry traces, for those who have somewhere to send them.

On when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by the variables that OpenTelemetry itself defines
(`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …); a `traceparent` that a caller sends is continued.
"""

import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI

from influence.errors import InvalidInput
from service.attributor import Answers
from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_PARTS = ("queue", "gradient", "search", "explain", "fetch")  # in the order in which they are done


def add_tracing(app: FastAPI) -> Callable[[], None]:
    """Trace every request, if traces are asked for.

    Returns:
        To be called at the end: sends what has not been sent.

    Raises:
        InvalidInput: They are asked for, and the packages are missing.
    """
    app.state.tracer = None
    if not os.environ.get(ENDPOINT):
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInput(
            f"{ENDPOINT} is set, and OpenTelemetry is not installed. Install it with "
            "`pip install 'whence[otel]'`, or unset the variable."
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", "whence")
    resource = Resource.create({"service.name": name, "service.version": version("whence")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls="livez,readyz,metrics",
        exclude_spans=["send", "receive"],
    )
    app.state.tracer = provider.get_tracer("whence")
    return provider.shutdown


class Traced:
    """Answers whose parts are spans beneath that of their request (`service.attributor.Answers`).

    Their lengths are those that the answer tells; it may come from another process.

    Args:
        answers: Answers.
        tracer: As OpenTelemetry gives it.
    """

    def __init__(self, answers: Answers, tracer: "Tracer") -> None:
        self._answers = answers
        self._tracer = tracer

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`."""
        found = await self._answers.attribute(request, request_id=request_id)
        if not found.cached:
            self._span_parts(found)
        return found

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`."""
        return await self._answers.document(document_id)

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return await self._answers.info()

    def _span_parts(self, found: AttributeResult) -> None:
        lengths_ns = [int(1e6 * getattr(found.timings_ms, part)) for part in _PARTS]
        begun_ns = time.time_ns() - sum(lengths_ns)
        for part, length_ns in zip(_PARTS, lengths_ns, strict=True):
            span = self._tracer.start_span(part, start_time=begun_ns)
            span.set_attribute("whence.request_id", found.request_id)
            begun_ns += length_ns
            span.end(begun_ns)
