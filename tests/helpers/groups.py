"""Which tests run in one process, and which of them begin first."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
#: Files, or folders of them, that share an engine, a Ray or a database server of the session.
SHARED = {
    "conformance/ledgers": "postgresql",
    "conformance/engines": "vllm",
    "integration/test_eval_vllm.py": "vllm",
    "integration/test_models_on_engines.py": "vllm",
    "integration/test_examples.py": "searches",
    "integration/test_search_ray.py": "searches",
    "integration/test_search_trackers.py": "searches",
    "integration/three_nodes": "three nodes",
    "outside": "outside",
}
#: What takes longest, longest first; everything else follows in the order of its name.
FIRST = (
    "integration/test_gateway_ray.py",
    "three nodes",
    "searches",
    "integration/test_server.py",
    "outside",
    "integration/test_variant_replica.py",
    "vllm",
    "integration/test_serve_openai.py",
    "integration/test_demo_chain.py",
)


def group_of(path: Path) -> str:
    """Tests of one group run in one process.

    Args:
        path: The file of a test.
    """
    inside = path.relative_to(TESTS).as_posix()
    return next((name for place, name in SHARED.items() if inside.startswith(place)), inside)
