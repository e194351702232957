"""Pages of documentation as tests read them: fenced blocks, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(
            page
            for room in ("cluster", "serve_apps", "ztom")
            for page in (REPOSITORY / room).rglob("*.md")
        ),
    ]
)

_BLOCK = re.compile(r"^```(\w*)[ \t]*(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path of its page in the repository.
        line: Line of the page on which it begins.
        language: The first word after the fence; empty where there is none.
        title: What follows it, in ``title="..."``.
        text: Its lines.
    """

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Blocks of these languages; of all when none is named."""
    return [block for block in _blocks() if not languages or block.language in languages]


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            yield Block(
                page=page.relative_to(REPOSITORY).as_posix(),
                line=text.count("\n", 0, match.start()) + 1,
                language=match[1],
                title=match[2].removeprefix("title=").strip('"'),
                text=match[3],
            )


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a console block, without prompt, comment and output."""
    joined = block.text.replace("\\\n", " ")
    lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
    return [
        words
        for line in lines
        for part in line.split(" && ")
        if (words := shlex.split(part, comments=True))
    ]


def links(page: Path) -> list[str]:
    """Where a page points to, other hosts apart."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [link for link in _LINK.findall(text) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as links name them."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.strip().replace(" ", "-") for text in plain}
