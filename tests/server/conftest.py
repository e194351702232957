"""What several files of tests over a socket start from; some have a server of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from gateway_calls import make_key
from server_helpers import Server
from variant_folders import chief_of, reading_variants

from ztom.client import Client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with reading_variants(tmp_path) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[Client]:
    with chief_of(server) as client:
        yield client


@pytest.fixture
def key(server: Server) -> str:
    """An API key of a user who is nobody special."""
    return make_key(server, "ada")


@pytest.fixture
def ask(server: Server, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        yield client
