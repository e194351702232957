"""Serve a variant on this machine behind OpenAI's API, and ask it something.

    python examples/serve.py

``ztom serve VARIANT`` does the first half and stays; ``ztom up`` and ``ztom deploy`` serve many
variants behind a gateway, with releases and rollback.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

import ztom
from serve_apps.variants.args import parse_args
from serve_apps.variants.launch import serve_variant
from ztom.demo.toy import make_toy_chain


def ask(api_base: str, model: str) -> str:
    """One answer; any client of OpenAI's API does the same."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "How do I copy a list?"}],
        "max_tokens": 12,
        "temperature": 0,
    }
    reply = httpx.post(f"{api_base}/chat/completions", json=body, timeout=60)
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"])


def main(folder: Path) -> None:
    """Write a variant of a toy chain and serve it for one question."""
    chain = ztom.load_chain(make_toy_chain(folder / "toy").chain_file)
    variant = ztom.blend(chain, [0.0, -1.0], folder / "toy-variant")
    with serve_variant(parse_args({"variant": variant.folder}), port=0, blocking=False) as served:
        print(f"{served.models[0]} at {served.api_base}")
        print(f"it says: {ask(served.api_base, served.models[0])}")


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        main(Path(name))
