"""Inputs for the fuzzer: seeds that are right, and what chance makes of them.

Every input follows from the seed of the run, the target's name and the input's number alone, so a
finding is made again from three words, and a run goes on where it was stopped.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

#: What no field expects, and some field will not survive.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 1e308, -1e308, 1e-320, 0.1,
    float("nan"), float("inf"), "", " ", "\x00", "a\x00b", "\ud800", "\u202e", "é" * 3, "x" * 5000,
    "inf", "1e308", "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "C:\\x", "%00",
    "filecache::http://169.254.169.254/", "gs://b/../x", "{{7*7}}", "${jndi:x}", "' OR 1=1 --",
    "\r\nSet-Cookie: x=1", "\x1b[31m", "2026-13-45", "+" * 64, "(a+)+$", [], {}, [[]], [None],
    {"": ""}, {"$ref": "#"}, ["a"] * 300, list(range(300)),
)  # fmt: skip
#: Between the line of a request and its body.
SEPARATOR = b" HTTP\n"
_WORDS = re.compile(rb"[A-Za-z_]+|[0-9.]+|[^A-Za-z0-9_]")
_RAW = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[" * 3000, b'{"a":' * 1500,
    b"1e999", b"-" * 50, b"1" * 5000, b'"' + b"\\u0000" * 40, b"\n", b"\r", b",", b":", b"{", b"}",
    b"&a [*a]", b"<<: *a", b"!!python/object:os.system", b"---\n", b"? :", b'""', b"\t", b"%TAG !",
)  # fmt: skip


def make_input(seeds: Sequence[bytes], *, seed: int, target: str, number: int) -> bytes:
    """The input of a number: the seeds as they are, then one of them after one to five changes."""
    if number < len(seeds):
        return seeds[number]  # what is right is seen to be taken
    chance = random.Random(f"{seed}:{target}:{number}")
    data, head = chance.choice(seeds), b""
    if SEPARATOR in data and chance.random() < 0.9:  # of a request mostly the body
        head, separator, data = data.partition(SEPARATOR)
        head += separator
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        data = chance.choice(_CHANGES)(data, chance)
    return head + data[: 2**20]


def change_json(data: bytes, chance: random.Random) -> bytes:
    """Change a value, a key or the number of something in a JSON document; others stay."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return change_words(data, chance)
    try:
        places = list(_places(document)) if isinstance(document, dict | list) else []
        if not places:
            return json.dumps(chance.choice(NASTY)).encode()
        holder, key = chance.choice(places)
        _change_place(holder, key, chance)
        return json.dumps(document, ensure_ascii=chance.random() < 0.7).encode("utf-8", "replace")
    except (RecursionError, ValueError):
        return data


def _change_place(holder: Any, key: Any, chance: random.Random) -> None:
    kind = chance.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(chance.choice(NASTY))[:5000]] = holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder.extend([holder[key]] * chance.choice((1, 50, 300)))
    elif kind == 3:
        deep: Any = holder[key]
        for _ in range(chance.choice((2, 30, 400))):
            deep = [deep] if chance.random() < 0.5 else {"a": deep}
        holder[key] = deep
    else:
        holder[key] = chance.choice(NASTY)


def _places(document: Any) -> Any:
    """Every (container, key) of a document."""
    stack = [document]
    while stack:
        item = stack.pop()
        keys: Any = item if isinstance(item, dict) else range(len(item))
        for key in list(keys):
            yield item, key
            if isinstance(item[key], dict | list):
                stack.append(item[key])


def change_words(data: bytes, chance: random.Random) -> bytes:
    """Put something else where a word, a number or a sign stands."""
    words = _WORDS.findall(data[:65536])
    if not words:
        return chance.choice(_RAW)
    place = chance.randrange(len(words))
    new = str(chance.choice(NASTY)).encode("utf-8", "replace")
    words[place] = chance.choice((new, chance.choice(_RAW), chance.choice(words)))
    return b"".join(words) + data[65536:]


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat or put in bytes."""
    if not data:
        return chance.choice(_RAW)
    place = chance.randrange(len(data))
    end = min(len(data), place + chance.choice((1, 4, 8, 64, 512)))
    kind = chance.randrange(6)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[end:]
    if kind == 3:
        return data[:end] + data[place:end] * chance.choice((1, 30)) + data[end:]
    if kind == 4:
        return data[:place] + chance.choice(_RAW) + data[place:]
    return data[:place] + chance.randbytes(end - place) + data[end:]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    change_json,
    change_json,
    change_words,
    change_bytes,
)
