"""Set the factors by hand and write the blend as a variant; no engine is started.

python examples/blend.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import ztom
from ztom.demo.toy import make_toy_chain


def main(folder: Path) -> None:
    """Blend a toy chain into ``folder / "variant"``."""
    # Yours: ztom.load_chain("chain.yaml"), or a list of checkpoints, the base first.
    chain = ztom.load_chain(make_toy_chain(folder / "toy").chain_file)
    print(f"{chain.transitions} transitions: {', '.join(chain.names)}")

    # 0 leaves a step as trained, -1 removes it, +1 applies it twice.
    variant = ztom.blend(chain, [0.1, -0.8], folder / "variant", dtype="float32")
    print(f"variant {variant.digest[:12]}, recipe {variant.recipe.coefficients}")

    # It is on record in folder / "ledger.db", and whoever opens it compares every byte.
    assert ztom.load_variant(variant).digest == variant.digest


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        main(Path(name))
