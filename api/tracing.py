"""OpenTelemetry traces, for those who have somewhere to send them.

On when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by the variables that OpenTelemetry itself defines
(`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …); a `traceparent` that a caller sends is continued.
"""

import os
from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI

from influence.errors import InvalidInput

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def add_tracing(app: FastAPI) -> Callable[[], None]:
    """Trace every request, if traces are asked for.

    Returns:
        To be called at the end: sends what has not been sent.

    Raises:
        InvalidInput: They are asked for, and the packages are missing.
    """
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
    return provider.shutdown
