"""Spans and the context that a replica gets; what reaches a collector: tests/server."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve_apps.tracing import (
    Tracing,
    engine_variables,
    trace_context,
    traces_endpoint,
    wants_traces,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACES_EXPORTER", "SDK_DISABLED", "EXPORTER_OTLP_ENDPOINT", "SERVICE_NAME"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


def test_off_by_default_and_the_context_goes_on() -> None:
    span = Tracing.from_environment().begin("chat", "support", {"traceparent": PARENT, "x": "y"})
    assert span.context == {"traceparent": PARENT}
    span.end(200, {})
    assert not wants_traces()
    assert engine_variables() == {}


def test_a_context_that_is_too_long_is_left_out() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=" + "b" * 600}
    assert trace_context(headers) == {"traceparent": PARENT}
    assert trace_context({}) == {}


def test_the_replica_is_a_child_of_the_gateway() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = Tracing(provider).begin("completion", "support", {"traceparent": PARENT})
    span.end(503, {"gen_ai.response.time_to_first_chunk": None})
    span.end(200, {})  # once is enough
    (made,) = exporter.get_finished_spans()
    _, trace, parent, _ = span.context["traceparent"].split("-")
    assert trace == PARENT.split("-")[1] == f"{made.context.trace_id:032x}"
    assert parent == f"{made.context.span_id:016x}" != PARENT.split("-")[2]
    assert made.name == "text_completion support"
    assert (made.attributes["http.response.status_code"], made.status.is_ok) == (503, False)
    assert "gen_ai.response.time_to_first_chunk" not in made.attributes


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"TRACES_ENDPOINT": "http://c:1/x"}, "http://c:1/x"),
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "grpc"}, "http://c:4317"),
    ],
)
def test_vllm_is_told_the_same_address(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str
) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert traces_endpoint() == endpoint
    protocol = variables.get("PROTOCOL", "http/protobuf")
    assert engine_variables() == {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol}
