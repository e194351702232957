"""What the fuzzer feeds: each target takes bytes, and may refuse them in one way only.

A parser refuses with a `ZtomError`, the server with a status below 500. Everything else is a
finding, and so is an input that takes longer than two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ztom.errors import ZtomError


@dataclass(frozen=True)
class Target:
    """One thing that is fed.

    Attributes:
        seeds: Inputs that are right.
        feed: Takes an input; returns what became of it in a word, and raises for a finding.
    """

    seeds: Sequence[bytes]
    feed: Callable[[bytes], str]


@contextlib.contextmanager
def open_target(name: str, folder: Path) -> Iterator[Target]:
    """A target that keeps its files in the folder."""
    with ExitStack() as undo:
        yield _TARGETS[name](folder, undo)


def _refusing(call: Callable[[], object]) -> str:
    try:
        call()
    except ZtomError as error:
        return type(error).__name__
    return "taken"


def _safetensors(folder: Path, undo: ExitStack) -> Target:
    from ztom.checkpoints.local import LocalSource
    from ztom.checkpoints.tensors import check_finite, read_header, read_tensor
    from ztom.settings import Settings

    settings, path = Settings(), folder / "model.safetensors"

    def file(header: object) -> bytes:
        raw = json.dumps(header).encode()
        return len(raw).to_bytes(8, "little") + raw + bytes(64)

    def entry(start: int, end: int, dtype: str = "F32") -> dict[str, object]:
        width = {"F32": 4, "BF16": 2, "I64": 8, "U8": 1}[dtype]
        return {
            "dtype": dtype,
            "shape": [(end - start) // width],
            "data_offsets": [start, end],
        }

    def feed(data: bytes) -> str:
        path.write_bytes(data)
        source = LocalSource(str(folder), folder, settings=settings)

        def read() -> None:
            for spec in list(read_header(source, path.name, settings=settings).values())[:4]:
                if spec.count <= 1024:
                    check_finite(read_tensor(source, spec), spec.name)

        return _refusing(read)

    headers = [
        {"a": entry(0, 32), "b": entry(32, 64)},
        {"__metadata__": {"format": "pt"}, "w": entry(0, 64, "BF16")},
        {"w": entry(0, 64, "I64")},
        {f"layer.{i}": entry(i * 4, i * 4 + 4) for i in range(16)},
    ]
    # the length before the header fits again after most changes, or little else is reached
    bare = [json.dumps(header).encode() for header in headers]

    def feed_either(data: bytes) -> str:
        whole = data[:1] in (b"{", b"[")
        return feed(len(data).to_bytes(8, "little") + data + bytes(64) if whole else data)

    return Target([*bare, *map(file, headers)], feed_either)


def _tar(folder: Path, undo: ExitStack) -> Target:
    import gzip

    from ztom.checkpoints.archive import open_tar
    from ztom.checkpoints.local import LocalSource
    from ztom.settings import Settings

    settings = Settings(cache_dir=folder / "cache", max_archive_bytes=4 * 2**20)
    path = folder / "a.tar"

    def archive(form: int, *files: tuple[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return out.getvalue()

    files = (("config.json", b"{}"), ("model.safetensors", b"x" * 700))
    long = ("m/" + "n" * 120 + ".json", b"1")
    plain = [
        archive(tarfile.USTAR_FORMAT, *files),
        archive(tarfile.PAX_FORMAT, *files, long),
        archive(tarfile.GNU_FORMAT, *files, long),
    ]

    def feed(data: bytes) -> str:
        path.write_bytes(data)

        def read() -> None:
            source = open_tar(
                str(path),
                LocalSource(str(folder), folder, settings=settings),
                path.name,
                compressed=data.startswith(b"\x1f\x8b"),
                settings=settings,
            )
            for name in source.paths()[:8]:
                source.read(name, 0, min(source.size(name), 4096))

        return _refusing(read)

    return Target([*plain, gzip.compress(plain[0], mtime=0)], feed)


def _stimuli(folder: Path, undo: ExitStack) -> Target:
    from ztom.stimuli.files import read_prompts, read_stimuli_file

    seeds = [
        b'prompt,expected\n"a, b",c\nd,e\n',
        b"question;answer\nwhat?;that\n",
        b'{"prompt": "p", "expected": "e"}\n{"prompt": "q", "expected": "f"}\n',
        b'{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}]}\n',
        b'[{"instruction": "i", "input": "", "output": "o"}]',
        b'[{"role": "user", "content": "hello"}]\n',
        b"1.5,2.5,0\n2.5,3.5,1\n",
        b"first line\nsecond line\n",
    ]

    def feed(data: bytes) -> str:
        outcomes = []
        for suffix in (".csv", ".jsonl", ".txt"):
            path = folder / f"s{suffix}"
            path.write_bytes(data)
            outcomes.append(_refusing(lambda path=path: read_stimuli_file(path)))  # type: ignore[misc]
        outcomes.append(_refusing(lambda: read_prompts(folder / "s.txt")))
        return outcomes[0]

    return Target(seeds, feed)


def _yaml(folder: Path, undo: ExitStack) -> Target:
    from ztom.blending.chain_file import ChainConfig
    from ztom.evaluation.suites.read import load_suite
    from ztom.io.yaml import read_yaml
    from ztom.search.config_files import load_config

    path = folder / "suite.yaml"
    (folder / "items.jsonl").write_text('{"id": "a", "input": "x", "target": "y"}\n')
    seeds = [
        b"chain: chain.yaml\nstimuli: s.jsonl\nerror: rouge_l\nbudget: {evaluations: 3}\n",
        b"chain: c\nstimuli: s\nerror:\n  - {function: rouge_l, weight: 2}\nsampler: {name: tpe}\n"
        b"space: {low: -1, high: 1}\nengine: {kind: vllm, replicas: 2}\nholdout: 0.3\nseed: 4\n",
        b"base: a\niterations: [b, c, d]\n",
        b"base: &a {path: x}\niterations:\n  - *a\n  - {path: y}\n",
        b"name: s\nversion: 1.0.0\nlayer: capability\nmetric: exact_match\nowner: me\n"
        b"decode: {max_new_tokens: 4}\n",
    ]

    def feed(data: bytes) -> str:
        path.write_bytes(data)
        first = _refusing(lambda: load_config(path))
        _refusing(lambda: load_suite(folder))
        _refusing(lambda: _chain(read_yaml(path)))
        return first

    def _chain(content: object) -> None:
        from pydantic import ValidationError

        with contextlib.suppress(ValidationError):
            ChainConfig.model_validate(content)

    return Target(seeds, feed)


def _jwt(folder: Path, undo: ExitStack) -> Target:
    from serve_apps.control_plane.tokens import ARTIFACT, LOGIN, Tokens

    tokens = Tokens((b"k" * 48, b"o" * 48))
    seeds = [tokens.issue("u", audience=name, seconds=3600) for name in (LOGIN, ARTIFACT)]

    def feed(data: bytes) -> str:
        text = data.decode("utf-8", "replace")
        claims = tokens.check(text, audience=LOGIN)
        if (
            claims is not None
            and text != seeds[0]
            and text.split(".")[:2] != seeds[0].split(".")[:2]
        ):
            raise AssertionError("a token that was never issued holds")
        return "refused" if claims is None else "holds"

    return Target([seed.encode() for seed in seeds], feed)


def _openai(folder: Path, undo: ExitStack) -> Target:
    from serve_apps.variants.wire import (
        Reply,
        check_request,
        count_prompts,
        engine_body,
        parse_body,
    )

    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}}
    chat = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}],
        "temperature": 0.5,
        "max_tokens": 5,
        "n": 2,
        "stop": ["x"],
        "logit_bias": {"5": 1},
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    pattern = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{2,5}$"}}}
    strict = {"type": "json_schema", "json_schema": {"name": "n", "schema": pattern}}
    bodies = [
        chat,
        {**chat, "response_format": form},
        {**chat, "response_format": strict},
        {**chat, "tools": [tool], "tool_choice": "auto", "stream": True},
        {"model": "m", "prompt": ["a", "b"], "max_tokens": 4, "stream_options": None},
        {"model": "m", "prompt": [[1, 2], [3]], "logprobs": 2},
        {"model": "m", "input": ["a", "b"], "encoding_format": "float"},
    ]

    def feed(data: bytes) -> str:
        body = parse_body(data)
        if isinstance(body, Reply):
            return str(body.status)
        for kind in ("chat", "completion", "embedding"):
            reply = check_request(
                kind, body, has_chat_template=True, has_tools=True, embeds=kind == "embedding"
            )
            if reply is not None and reply.status >= 500:
                raise AssertionError(f"status {reply.status} for {kind}")
            if reply is None:
                json.dumps(engine_body(kind, body))
                count_prompts(body)
        return "read"

    return Target([json.dumps(body).encode() for body in bodies], feed)


def _bodies(folder: Path, undo: ExitStack) -> Target:
    from fuzz_server import OpenServer

    loop = asyncio.new_event_loop()
    undo.callback(loop.close)
    server = OpenServer(folder / "data", loop)
    undo.callback(server.close)
    return Target(server.seeds, server.feed)


_TARGETS: dict[str, Callable[[Path, ExitStack], Target]] = {
    "safetensors": _safetensors,
    "tar": _tar,
    "bodies": _bodies,
    "openai": _openai,
    "yaml": _yaml,
    "stimuli": _stimuli,
    "jwt": _jwt,
}
#: Names of the targets.
TARGETS = tuple(_TARGETS)
