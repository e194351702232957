"""Templates of pages that are one file each: no scripts, no requests, every text escaped.

A template of a page extends ``page.html.jinja``, which brings the style sheet and forbids the
browser to fetch or run anything, and fills its blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2

from ztom.pages import formats

Filter = Callable[..., object]


def page_template(file: Path, filters: Mapping[str, Filter] | None = None) -> jinja2.Template:
    """A template that may extend and include those of this folder and of its own.

    Args:
        file: File of the template.
        filters: Filters beside those for numbers and texts, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([file.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number,
        signed=formats.signed,
        setting=formats.setting,
        count=formats.count,
        percent=formats.percent,
        named=formats.name,
        visible=formats.visible,
        excerpt=formats.excerpt,
        **(filters or {}),
    )
    return environment.get_template(file.name)
