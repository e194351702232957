"""A page as an HTML parser sees it, and the checks that hold for every page of one file."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements, attributes and texts, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        text.encode("utf-8")
        self.open: list[str] = []
        self.problems: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.charts: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        self.problems += [f"{name} is never closed" for name in self.open]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        self.ids += [value for key, value in attributes if key == "id" and value]
        if name == "svg" and dict(attributes).get("role") == "img":
            self.charts.append(dict(attributes))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        if not self.open or self.open.pop() != name:
            self.problems.append(f"</{name}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def check(self) -> None:
        """Well-formed, and nothing that runs, fetches or leads elsewhere."""
        assert self.problems == []
        assert len(self.ids) == len(set(self.ids))
        assert not {"script", "img", "iframe", "object", "embed", "form", "base"} & set(self.names)
        for element, key, value in self.attributes:
            assert not key.startswith("on"), (element, key)
            if key in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:,"))
        assert all(chart["aria-label"] for chart in self.charts)
        assert not re.search(r"\b(nan|inf)\b", self.text)
