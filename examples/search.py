"""Find the factors of a chain, prove them on a holdout, write the variant.

    python examples/search.py

A search of your own is a YAML file (``ztom search --example`` prints one):
``ztom.run_search("search.yaml")``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import ztom
from ztom.demo.toy import make_toy_chain


def main(folder: Path) -> None:
    """Search on a toy chain; everything goes below ``folder``."""
    toy = make_toy_chain(folder / "toy")
    result = ztom.run_search(
        {
            "name": "example",
            "chain": str(toy.chain_file),
            "stimuli": str(toy.search_file),
            "holdout": str(toy.holdout_file),  # the search never sees it
            "error": "cross_entropy",
            "scaling_factor_limit": 1.0,
            "budget": {"evaluations": 8},
            "engine": {"name": "torch"},  # starts sooner than vllm, the default
            "output": str(folder / "search"),
        }
    )
    print(f"error {result.trained_model_error:.3f} -> {result.optimized_model_error:.3f}")
    for name, factor in zip(result.factor_names, result.optimized_scaling_factors, strict=True):
        print(f"{factor:+.3f}  {name}")
    assert result.proof is not None
    print(f"holdout: {result.proof.decision.outcome}; report: {folder / 'search' / 'report.html'}")
    if result.proof.variant is not None:
        print(f"variant {ztom.load_variant(result.proof.variant).digest[:12]}")


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        main(Path(name))
