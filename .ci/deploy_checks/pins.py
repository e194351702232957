"""Whether what is named is one thing: a version, a digest; no `latest`, nothing made up."""

from __future__ import annotations

import re

_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
#: Digits that a digest by accident has of one kind at most; one that is made up has fewer kinds.
_FEWEST_DIGITS = 8
_MOVING = {"latest", "main", "master", "nightly", "stable", "edge", "dev"}


def image_problem(image: str) -> str | None:
    """What is wrong with the name of an image; None for one that is of a version or a digest."""
    name, at, digest = image.partition("@")
    if at:
        problem = digest_problem(digest)
        return f"{image}: {problem}" if problem else None
    tag = name.rpartition("/")[2].partition(":")[2]
    if not tag:
        return f"{image} has neither tag nor digest"
    if tag in _MOVING:
        return f"{image} is whatever {tag} is on that day"
    return None if re.search(r"\d", tag) else f"{image}: {tag} is no version"


def digest_problem(digest: str) -> str | None:
    """What is wrong with a digest; None for one that a registry may have given."""
    if not _DIGEST.match(digest):
        return f"{digest!r} is no digest (sha256: and 64 digits): `make image-lock` writes them"
    digits = digest.partition(":")[2]
    if len(set(digits)) < _FEWEST_DIGITS or digits in "0123456789abcdef" * 5:
        return f"{digest} stands for a digest: have `make image-lock` write the real one"
    return None
