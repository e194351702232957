"""A local HTTP server that speaks enough of the Google and S3 protocols to read objects.

The clients under test are the real gcsfs and s3fs; only the far side is ours, so that it can fail
on demand and replace an object between two reads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class ObjectStore:
    """The objects of one bucket, and what shall go wrong next.

    Attributes:
        objects: Content and generation by key.
        failures: HTTP statuses that the next requests answer with, in order.
        short_reads: How many of the next reads of content lose their last byte.
    """

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = {key: (content, 1) for key, content in objects.items()}
        self.failures: list[int] = []
        self.short_reads = 0
        self.url = ""

    def replace(self, key: str, content: bytes) -> None:
        self.objects[key] = (content, self.objects[key][1] + 1)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ObjectStore

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if self.store.failures:
            status = self.store.failures.pop(0)
            error = {"error": {"code": status, "message": "try later"}}
            self._answer(status, json.dumps(error).encode())
        elif "/storage/v1/b/" in url.path:
            self._google(url.path.partition("/storage/v1/b/")[2], query)
        else:
            self._s3(unquote(url.path), query)

    def _google(self, path: str, query: dict[str, str]) -> None:
        bucket, _, rest = path.partition("/o")
        key = unquote(rest.removeprefix("/"))
        if not key:
            items = [self._google_info(bucket, k) for k in self._keys(query.get("prefix", ""))]
            self._answer(200, json.dumps({"items": items}).encode())
            return
        content, generation = self.store.objects.get(key, (b"", 0))
        if not generation or query.get("generation", str(generation)) != str(generation):
            self._answer(404, b'{"error": {"code": 404, "message": "no such object"}}')
        elif query.get("alt") == "media":
            self._content(content, {})
        else:
            self._answer(200, json.dumps(self._google_info(bucket, key)).encode())

    def _google_info(self, bucket: str, key: str) -> dict[str, str]:
        content, generation = self.store.objects[key]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "size": str(len(content)),
            "generation": str(generation),
        }

    def _s3(self, path: str, query: dict[str, str]) -> None:
        key = path.lstrip("/").partition("/")[2]
        if not key:
            rows = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(self.store.objects[key][0])}</Size></Contents>"
                for key in self._keys(query.get("prefix", ""))
            )
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            self._answer(200, text.encode(), {"Content-Type": "application/xml"})
        elif key in self.store.objects:
            content = self.store.objects[key][0]
            self._content(content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
        else:
            self._answer(404, b"")

    def _keys(self, prefix: str) -> list[str]:
        keys = sorted(key for key in self.store.objects if key.startswith(prefix))
        return [key for key in keys if "/" not in key[len(prefix) :]]

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(200, content, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        if self.store.short_reads and self.command == "GET":
            self.store.short_reads -= 1
            part = part[:-1]
        self._answer(206, part, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json"} | (headers or {})
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serve(objects: dict[str, bytes]) -> Iterator[ObjectStore]:
    """Serve the objects on a free local port."""
    store = ObjectStore(objects)
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
