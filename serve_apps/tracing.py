"""OpenTelemetry: a span for each request of the gateway, and what leads from the client to vLLM.

Off unless the standard variable ``OTEL_TRACES_EXPORTER`` is ``otlp``; other ``OTEL_*`` variables
say where spans go, how many are kept, and what they are called. The client's context
(``traceparent``, ``tracestate``) is handed on to the replica in any case. Spans carry names, counts
and seconds as OpenTelemetry's conventions for generative AI have them, and never a text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ztom.extras import require_extra

#: Headers of the W3C's trace context, and how long each may be.
_CONTEXT_LENGTHS = {"traceparent": 128, "tracestate": 512}
#: Values of ``gen_ai.operation.name``.
_OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
_SERVICE = "ztom-gateway"
_GRPC, _HTTP = "grpc", "http/protobuf"
_ENDPOINTS = {_GRPC: "http://localhost:4317", _HTTP: "http://localhost:4318"}


def wants_traces() -> bool:
    """Whether spans are to be made."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return os.environ.get("OTEL_TRACES_EXPORTER", "") == "otlp" and not disabled


def require_tracing() -> None:
    """Look whether the packages are there, where spans are to be made.

    Raises:
        ConfigError: They are not.
    """
    if wants_traces():
        purpose = "OTEL_TRACES_EXPORTER=otlp"
        require_extra("opentelemetry.sdk", extra="opentelemetry", purpose=purpose)
        require_extra(_exporter_module(), extra="opentelemetry", purpose=purpose)


def traces_protocol() -> str:
    """``grpc`` or ``http/protobuf`` as the variables say; the latter is the standard's default."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((os.environ[name] for name in names if os.environ.get(name)), _HTTP)


def traces_endpoint() -> str:
    """Address of the collector, in full: over HTTP with the path for traces."""
    full = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if full:
        return full
    protocol = traces_protocol()
    default = _ENDPOINTS.get(protocol, _ENDPOINTS[_HTTP])
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or default
    return base if protocol == _GRPC else f"{base.rstrip('/')}/v1/traces"


def engine_variables() -> dict[str, str]:
    """Variables of the engine's process: vLLM reads one of the two for the protocol."""
    return {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": traces_protocol()} if wants_traces() else {}


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """The trace context among headers, by name in lower case; what is too long is left out."""
    given = {name: headers.get(name) for name in _CONTEXT_LENGTHS}
    return {n: value for n, value in given.items() if value and len(value) <= _CONTEXT_LENGTHS[n]}


class RequestSpan:
    """The span of one request; where none are made, what the client sent goes on.

    Args:
        span: OpenTelemetry's span; None where none are made.
        context: Headers for the replica.
    """

    def __init__(self, span: Any, context: Mapping[str, str]) -> None:
        self._span = span
        self.context = dict(context)

    def end(self, status: int, attributes: Mapping[str, str | int | float | None]) -> None:
        """End it, once.

        Args:
            status: HTTP status of the answer.
            attributes: Further attributes by name; those that are None are left out.
        """
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        span, self._span = self._span, None
        span.set_attribute("http.response.status_code", status)
        for name, value in attributes.items():
            if value is not None:
                span.set_attribute(name, value)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()


class Tracing:
    """Makes spans.

    Args:
        provider: OpenTelemetry's provider of tracers; None makes none.
    """

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("ztom")

    @classmethod
    def from_environment(cls) -> Tracing:
        """As the ``OTEL_*`` variables of this process say.

        Raises:
            ConfigError: A package is missing.
        """
        if not wants_traces():
            return cls()
        require_tracing()
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": _SERVICE}
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
        return cls(provider)

    def begin(self, kind: str, model: str, headers: Mapping[str, str]) -> RequestSpan:
        """The span of a request, a child of the client's.

        Args:
            kind: ``chat``, ``completion`` or ``embedding``.
            model: Name of the model that the client asked for.
            headers: Headers of the request by name in lower case.
        """
        context = trace_context(headers)
        if self._tracer is None:
            return RequestSpan(None, context)
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        operation = _OPERATIONS.get(kind, kind)
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=propagator.extract(context),
            kind=SpanKind.SERVER,
            attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": model},
        )
        onward: dict[str, str] = {}
        propagator.inject(onward, context=set_span_in_context(span))
        return RequestSpan(span, onward)

    def close(self) -> None:
        """Send what is waiting, and end."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporter_module() -> str:
    kind = "grpc" if traces_protocol() == _GRPC else "http"
    return f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter"


def _exporter() -> Any:
    """The exporter of the protocol; it reads the ``OTEL_EXPORTER_OTLP_*`` variables itself."""
    from importlib import import_module

    return import_module(_exporter_module()).OTLPSpanExporter()
