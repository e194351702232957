"""A stand-in of the Hugging Face Hub: what `huggingface_hub` 2.4 calls, with commits that bind.

Its rules are those of the Hub as the client relies on them: content is addressed by commit, a
commit never changes, large files have their sha256 as ETag and lie elsewhere, a commit names its
parent and only what was uploaded, small files have git's ETag. Nothing here imports the client.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet")
TOKEN = "hf_writer"
GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Repo:
    """A repository: commits, newest last, and what its branches and tags point to."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(
        self, files: Mapping[str, bytes], ref: str = "main", deleted: Collection[str] = ()
    ) -> str:
        content = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        content = {path: data for path, data in content.items() if path not in deleted}
        digest = hashlib.sha1(f"{len(self.commits)}".encode())
        for path, data in sorted(content.items()):
            digest.update(path.encode() + hashlib.sha1(data).digest())
        sha = digest.hexdigest()
        self.commits[sha] = content
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass
class Hub:
    """What the server holds, and a record of the requests it got."""

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    silent: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def storage_url(self) -> str:
        """Large files lie on another host, which gets no token."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(
        self, name: str, files: Mapping[str, bytes], *, kind: str = "models", **flags: bool
    ) -> str:
        """A repository with one commit on main; returns the commit."""
        repo = self.repos.setdefault((kind, name), Repo(**flags))
        return repo.commit(files)

    def add_folder(self, name: str, folder: Path, **flags: bool) -> str:
        files = {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }
        return self.add(name, {**files, ".gitattributes": GITATTRIBUTES}, **flags)


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_POST(self) -> None:
        self._write(self._post)

    def do_PUT(self) -> None:
        self._write(self._put)

    # answers

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), Content_Type="application/json")

    def _error(self, status: int, code: str) -> None:
        body = json.dumps({"error": code}).encode()
        self._send(status, body, X_Error_Code=code, X_Error_Message=code)

    def _is_member(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    # reading

    def _get(self) -> None:
        hub = self.hub
        with hub.lock:
            hub.requests.append(f"{self.command} {self.path}")
        if hub.silent:
            threading.Event().wait(30)
            return
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if parts[:1] == ["cdn"]:
            self._large(parts[1])
        elif parts == ["api", "whoami-v2"]:
            self._json({"name": "ada", "type": "user"}) if self._is_member() else self._error(
                401, ""
            )
        elif parts[0] == "api" and parts[1] not in ("models", "datasets"):
            self._error(404, "")
        elif parts[0] == "api" and len(parts) == 2:
            self._search(parts[1], query)
        elif parts[0] == "api":
            self._api(parts[1], "/".join(parts[2:4]), parts[4:], query)
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            self._file(kind, "/".join(parts[:2]), parts[2:])

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self._is_member()):
            self._error(404 if self._is_member() else 401, "RepoNotFound")
            return None
        return repo

    def _search(self, kind: str, query: dict[str, str]) -> None:
        names = [name for k, name in self.hub.repos if k == kind]
        if "author" in query:
            names = [name for name in names if name.startswith(f"{query['author']}/")]
        if "search" in query:
            names = [name for name in names if query["search"].lower() in name.lower()]
        self._json([{"id": name} for name in names[: int(query.get("limit", 1000))]])

    def _api(self, kind: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        if rest == ["refs"]:
            branches = [{"name": n, "ref": n, "targetCommit": sha} for n, sha in repo.refs.items()]
            self._json({"branches": branches, "tags": [], "converts": []})
            return
        revision = "/".join(rest[1:]) if rest[:1] in (["revision"], ["tree"]) else "main"
        sha = repo.resolve(revision)
        if sha is None:
            self._error(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self._json([_tree_entry(p, data) for p, data in sorted(repo.commits[sha].items())])
        else:
            blobs = query.get("blobs") in ("true", "True", "1")
            siblings = [_sibling(p, data, blobs) for p, data in sorted(repo.commits[sha].items())]
            self._json(
                {"id": name, "modelId": name, "sha": sha, "private": repo.private,
                 "gated": repo.gated, "siblings": siblings, "tags": [], "downloads": 0}
            )  # fmt: skip

    def _file(self, kind: str, name: str, rest: list[str]) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        if repo.gated and not self._is_member():
            self._error(401, "GatedRepo")
            return
        take = 3 if rest[1:2] == ["refs"] else 1
        sha = repo.resolve("/".join(rest[1 : 1 + take]))
        path = "/".join(rest[1 + take :])
        if rest[:1] != ["resolve"] or sha is None:
            self._error(404, "RevisionNotFound")
            return
        data = repo.commits[sha].get(path)
        if data is None:
            body = b"Entry not found"
            self._send(404, body, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        elif is_large(path):
            digest = hashlib.sha256(data).hexdigest()
            self.hub.uploads[digest] = data
            self._send(
                302, Location=f"{self.hub.storage_url}/cdn/{digest}", X_Repo_Commit=sha,
                X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(data)), ETag=f'"{sha}"',
            )  # fmt: skip
        else:
            self._content(data, ETag=f'"{git_oid(data)}"', X_Repo_Commit=sha)

    def _large(self, digest: str) -> None:
        data = self.hub.uploads.get(digest)
        if self.headers.get("Authorization"):
            self._error(400, "Only one auth mechanism allowed")
        elif data is None:
            self._error(404, "EntryNotFound")
        else:
            self._content(data, ETag=f'"{digest}"')

    def _content(self, data: bytes, **headers: str) -> None:
        asked = self.headers.get("Range")
        if asked is None or self.command == "HEAD":
            self._send(200, data, **headers)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin, end = int(first), int(last) + 1 if last else len(data)
        if begin >= len(data):
            self._send(416, Content_Range=f"bytes */{len(data)}")
            return
        span = f"bytes {begin}-{min(end, len(data)) - 1}/{len(data)}"
        self._send(206, data[begin:end], Content_Range=span, **headers)

    # writing

    def _write(self, act: Any) -> None:
        body = self._body()
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {self.path}")
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] != ["lfs", "put"] and not self._is_member():
            self._send(401, b'{"error": "Invalid username or password."}')
            return
        act(parts, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _post(self, parts: list[str], body: bytes) -> None:
        if parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"] and parts[4] == "preupload":
            repo = self.hub.repos["models", "/".join(parts[2:4])]
            known = repo.commits[repo.refs[parts[5]]]
            files = [_mode(file, known) for file in json.loads(body)["files"]]
            self._json({"files": files})
        elif parts[:2] == ["api", "models"] and parts[4] == "commit":
            self._commit("/".join(parts[2:4]), parts[5], body)
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            objects = [self._action(item) for item in json.loads(body)["objects"]]
            self._json({"transfer": "basic", "objects": objects})
        elif parts[:2] == ["lfs", "verify"]:
            wanted = json.loads(body)
            known = self.hub.uploads.get(wanted["oid"])
            self._json({}, 200 if known is not None and len(known) == wanted["size"] else 422)
        else:
            self._error(404, "EntryNotFound")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'ada'}/{wanted['name']}"
        if ("models", name) in self.hub.repos:
            self._json(
                {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"},
                409,
            )
            return
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.add(name, {".gitattributes": GITATTRIBUTES}, private=private)
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _action(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["oid"] in self.hub.uploads:
            return item
        upload = {"href": f"{self.hub.url}/lfs/put/{item['oid']}"}
        return {
            **item,
            "actions": {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs/verify"}},
        }

    def _put(self, parts: list[str], body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != parts[2]:
            self._send(422)
            return
        self.hub.uploads[parts[2]] = body
        self._send(200)

    def _commit(self, name: str, revision: str, body: bytes) -> None:
        repo = self.hub.repos[("models", name)]
        files: dict[str, bytes] = {}
        deleted: set[str] = set()
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if (
                item["key"] == "header"
                and value.get("parentCommit", repo.refs[revision]) != repo.refs[revision]
            ):
                self._json(
                    {"error": "A commit has happened since. Please refresh and try again."}, 412
                )
                return
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    self._json({"error": f"{value['path']} was never uploaded"}, 422)
                    return
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif item["key"] == "deletedFile":
                deleted.add(value["path"])
        sha = repo.commit(files, revision, deleted)
        self._json(
            {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True}
        )


def _mode(file: dict[str, Any], known: Mapping[str, bytes]) -> dict[str, Any]:
    path = file["path"]
    oid = None
    if path in known:
        data = known[path]
        oid = hashlib.sha256(data).hexdigest() if is_large(path) else git_oid(data)
    mode = "lfs" if is_large(path) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _sibling(path: str, data: bytes, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_oid(data)}
    if is_large(path):
        entry["lfs"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "pointerSize": 134,
        }
    return entry


def _tree_entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
    if is_large(path):
        entry["lfs"] = {
            "oid": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "pointerSize": 134,
        }
    return entry


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A Hub on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
