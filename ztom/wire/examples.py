"""Values that the examples of requests and answers are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

USER = "7d1f4a52c0b94e3a8c6d2b9e5f013a77"
PROJECT = "3f2b8c1e9d4a4b6f8a7c5d2e1f0a9b8c"
FILE = "9a0c4d7e2b1f4c8d9e6a5b3c2d1e0f4a"
REQUEST = "c5e8d1b2a3f44e6d8b7a9c0d1e2f3a4b"
KEY = "1b2c3d4e5f60718293a4b5c6d7e8f901"
DIGEST = "5f8e2c1d7b6a4039e1f0c2d3b4a59687786950413223140f5e6d7c8b9aafbecd"
OTHER_DIGEST = "0c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c8d9eafb"
PUBLIC_KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
TIME = "2026-03-02T09:30:00.000000+00:00"
LATER = "2026-03-02T09:47:12.000000+00:00"


def example(**values: Any) -> ConfigDict:
    """The part of a model's configuration that gives it an example, by the names of the wire."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def example_of(schema: Mapping[str, Any]) -> Any:
    """The first example in a JSON schema.

    Raises:
        LookupError: It has none.
    """
    return schema["examples"][0]
