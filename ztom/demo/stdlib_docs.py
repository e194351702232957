"""Reads one-sentence descriptions out of the standard library of the Python that runs this file.

Every Python installation carries a few thousand of them: the first sentences of the docstrings of
functions, classes and methods. Run as a script it prints them as JSON, ``[name, topic, sentence]``
each, in the same order on every run of one Python version.

`ztom.demo.corpus` runs it in a fresh, isolated interpreter, because libraries patch the standard
library when they are imported. So it imports nothing but the standard library, and of that only the
fixed list `TOPICS`, whose modules import without side effects; one that is missing on this platform
or version is skipped. It reads ``__doc__`` and calls nothing it finds.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

#: Topic -> modules, in the order in which a name is claimed when two modules export the same thing.
TOPICS: dict[str, tuple[str, ...]] = {
    topic: tuple(modules.split())
    for topic, modules in {
        "text": """
            string re textwrap difflib unicodedata codecs html html.parser json json.encoder
            json.decoder csv configparser locale gettext shlex pprint reprlib tokenize base64
            binascii quopri plistlib tomllib xml.dom.minidom xml.etree.ElementTree
            xml.sax.saxutils xml.sax.handler xml.sax.xmlreader optparse argparse getopt cmd
            stringprep
            """,
        "data": """
            collections collections.abc math cmath decimal fractions numbers statistics random
            datetime calendar time itertools functools operator heapq bisect array enum
            dataclasses struct copy graphlib zoneinfo secrets hashlib hmac uuid weakref types
            queue sched colorsys copyreg contextvars
            """,
        "files": """
            os os.path pathlib shutil tempfile glob fnmatch stat filecmp fileinput linecache io
            zipfile tarfile gzip bz2 lzma zlib sqlite3 pickle pickletools shelve dbm marshal mmap
            subprocess signal pty tty termios fcntl resource pwd grp sys platform sysconfig
            mimetypes netrc wave zipimport zipapp compileall py_compile getpass faulthandler
            select mailbox
            """,
        "tools": """
            inspect ast dis pdb bdb trace traceback tracemalloc logging logging.handlers
            logging.config unittest unittest.mock doctest typing contextlib warnings symtable
            pkgutil importlib importlib.abc importlib.machinery importlib.metadata
            importlib.resources importlib.util modulefinder code codeop timeit pstats profile
            pyclbr abc gc runpy atexit tabnanny keyword
            """,
        "network": """
            socket ssl http http.client http.server http.cookies http.cookiejar urllib.request
            urllib.parse urllib.error urllib.response urllib.robotparser email.message
            email.charset email.header email.headerregistry email.parser email.generator
            email.policy email.utils email.mime.text email.mime.base email.iterators
            email.encoders email.errors smtplib imaplib ftplib poplib socketserver selectors
            ipaddress webbrowser xmlrpc.client xmlrpc.server wsgiref.util wsgiref.headers
            wsgiref.handlers wsgiref.simple_server asyncio asyncio.base_events asyncio.events
            asyncio.streams asyncio.subprocess asyncio.transports asyncio.protocols
            asyncio.queues asyncio.locks asyncio.tasks asyncio.futures asyncio.runners
            concurrent.futures threading multiprocessing.pool multiprocessing.managers
            multiprocessing.connection multiprocessing.shared_memory multiprocessing.queues
            multiprocessing.context
            """,
    }.items()
}

#: Built-in types are always there and belong to no module that users name.
_BUILTIN_TYPES: tuple[tuple[type, str], ...] = (
    *((kind, "text") for kind in (str, bytes, bytearray)),
    *((kind, "data") for kind in (list, dict, set, frozenset, tuple, int, float, complex, range)),
)

_MAX_ANSWER_CHARS = 160
_MIN_ANSWER_WORDS = 4
_SIGNATURE = re.compile(r"^[\w.\[\]]+\([^\n]*\)?[^\n]*(->|\)\s*$|\.\.\.)")
_SENTENCE_END = re.compile(r"(?<=[^.A-Z][.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z\"'`(])")


def sentences() -> list[tuple[str, str, str]]:
    """(dotted name, topic, sentence), topic by topic and module by module, names sorted within.

    Names and sentences are unique: a description that several things share (inherited methods,
    aliases) belongs to the first.
    """
    rows: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for topic, name, doc in _documented():
        sentence = first_sentence(doc)
        if sentence is None or name.lower() in seen or sentence.lower() in seen:
            continue
        seen.update((name.lower(), sentence.lower()))
        rows.append((name, topic, sentence))
    return rows


def first_sentence(doc: str) -> str | None:
    """The first sentence of a docstring on one line, or None if it makes no short, clean answer."""
    lines = inspect.cleandoc(doc).splitlines()
    while lines and (not lines[0].strip() or _SIGNATURE.match(lines[0])):
        lines.pop(0)
    paragraph: list[str] = []
    for line in lines:
        if not line.strip():
            break
        paragraph.append(line.strip())
    sentence = _SENTENCE_END.split(" ".join(" ".join(paragraph).split()), maxsplit=1)[0].rstrip(
        " :,"
    )
    usable = (
        sentence.isascii()
        and sentence[:1].isalpha()
        and len(sentence) <= _MAX_ANSWER_CHARS
        and len(sentence.split()) >= _MIN_ANSWER_WORDS
    )
    return sentence if usable else None


def _documented() -> Iterator[tuple[str, str, str]]:
    """(topic, dotted name, docstring) of everything that the listed modules export."""
    for kind, topic in _BUILTIN_TYPES:
        yield from ((topic, name, doc) for name, doc in _members(kind, kind.__name__))
    for topic, modules in TOPICS.items():
        for module_name in modules:
            module = _import(module_name)
            if module is not None:
                yield from ((topic, name, doc) for name, doc in _exports(module, module_name))


def _import(name: str) -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None  # not on this platform, or not in this version


def _exports(module: ModuleType, module_name: str) -> Iterator[tuple[str, str]]:
    listed = getattr(module, "__all__", None)
    for attribute in sorted(set(listed) if listed is not None else vars(module)):
        value = vars(module).get(attribute)
        if attribute.startswith("_") or not (listed is not None or _is_own(value, module)):
            continue
        name = f"{module_name}.{attribute}"
        if inspect.isroutine(value) and isinstance(value.__doc__, str):
            yield name, value.__doc__
        elif inspect.isclass(value):
            yield from _members(value, name)


def _is_own(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _members(kind: type, name: str) -> Iterator[tuple[str, str]]:
    """The class itself, then its own public methods; what it inherits belongs to its parents."""
    doc = kind.__dict__.get("__doc__")
    if isinstance(doc, str):
        yield name, doc
    for attribute in sorted(kind.__dict__):
        member = kind.__dict__[attribute]
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        documented = inspect.isroutine(function) or isinstance(function, property)
        if documented and not attribute.startswith("_") and isinstance(function.__doc__, str):
            yield f"{name}.{attribute}", function.__doc__


if __name__ == "__main__":
    json.dump(sentences(), sys.stdout)
