"""One trace from a client through the gateway to a replica, at a stand-in for a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from gateway_calls import chat
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from server_helpers import Server
from variant_folders import deploy, reading_variants, wait_for

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}


class Collector:
    """What was sent to the address that the standard variables name."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        resources = [part for request in self.requests for part in request.resource_spans]
        return [span for part in resources for span in part.scope_spans[0].spans]

    @property
    def service(self) -> str:
        attributes = self.requests[0].resource_spans[0].resource.attributes
        return next(pair.value.string_value for pair in attributes if pair.key == "service.name")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    yield collector
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(collector: Collector, tmp_path: Path) -> Iterator[Server]:
    with reading_variants(tmp_path) as server:
        yield server


def test_a_trace_goes_through_the_gateway(server, admin, ask, collector: Collector) -> None:
    seen: list[Mapping[str, str]] = []
    inner = server.stage.ask

    async def ask_and_record(placement: Any, call: Any) -> Any:
        seen.append(call.trace)
        return await inner(placement, call)

    server.stage.ask = ask_and_record
    deploy(server, admin, "one")
    raw = chat(ask, extra_headers=PARENT)
    wait_for(lambda: collector.spans, "a span")
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CLIENT)
    assert (span.name, collector.service) == ("chat support", "ztom-gateway")
    values = {pair.key: pair.value for pair in span.attributes}
    assert values["gen_ai.response.id"].string_value == raw.parse().id
    assert values["gen_ai.response.model"].string_value == raw.headers["x-ztom-variant"]
    assert values["gen_ai.usage.output_tokens"].int_value == 3
    assert values["http.response.status_code"].int_value == 200
    assert values["ztom.role"].string_value == "stable"
    # the replica's own spans are children of the gateway's
    assert seen == [{"traceparent": f"00-{TRACE}-{span.span_id.hex()}-01"}]
    assert not any("open a file" in str(pair) for pair in span.attributes)


def test_a_stream_and_a_failure_have_spans_too(server, admin, ask, collector: Collector) -> None:
    _, digest = deploy(server, admin, "one")
    messages = [{"role": "user", "content": "a"}]
    stream = ask.chat.completions.create(model="support", messages=messages, stream=True)
    assert len(list(stream)) > 1
    wait_for(lambda: len(collector.spans) == 1, "the stream's span")
    names = {pair.key for pair in collector.spans[0].attributes}
    assert "gen_ai.response.time_to_first_chunk" in names
    server.stage.actor(digest).status = 500
    with pytest.raises(Exception, match="no"):
        chat(ask)
    wait_for(lambda: len(collector.spans) == 2, "the failure's span")
    assert collector.spans[1].status.code == 2
    assert collector.spans[1].parent_span_id == b""  # no client's context: a trace of its own
