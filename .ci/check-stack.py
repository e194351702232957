"""Import the whole stack and say its versions; a broken combination stops here, with the reason."""

from __future__ import annotations

import importlib
import sys
import warnings

warnings.simplefilter("ignore")
MODULES = ("torch", "transformers", "vllm", "ray", "sentence_transformers", "ztom")


def main() -> int:
    """Import one after the other; returns the exit status."""
    for name in MODULES:
        try:
            module = importlib.import_module(name)
            if name == "transformers":  # the part that a broken torchvision breaks
                importlib.import_module("transformers.models.llama.modeling_llama")
        except Exception as error:
            print(f"{name} cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
            print(
                "The environment is broken. Remove .venv and run make again; on a CPU torchvision, "
                "torchaudio and torchcodec must not be installed beside a CPU build of torch.",
                file=sys.stderr,
            )
            return 1
        print(f"{name} {module.__version__}", end="  ", flush=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
