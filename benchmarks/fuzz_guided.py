"""Feed one target with inputs that reach new code, where atheris is installed.

    pip install atheris
    python benchmarks/fuzz_guided.py jwt [--inputs 100000] [--corpus fuzz-corpus/jwt]

``fuzz.py`` changes right inputs by chance; this keeps what reaches a branch that nothing reached
before (libFuzzer), and changes that. It stops at the first finding and keeps its bytes in a file
``crash-...`` or ``timeout-...``. The target ``bodies`` is not for it: its event loop is shared.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from fuzz_targets import TARGETS, open_target

LIMIT_S = 2


def main() -> int:
    """Feed until the inputs are used up; returns 1 where atheris is not installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[name for name in TARGETS if name != "bodies"])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 1
    corpus = options.corpus or Path("fuzz-corpus") / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="ztom-fuzz-"))
    undo = ExitStack()
    undo.callback(shutil.rmtree, work, ignore_errors=True)
    # the target imports what it feeds when it is opened, so that is what gets counted
    with atheris.instrument_imports(include=["ztom", "serve_apps"]):
        target = undo.enter_context(open_target(options.target, work))
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-atheris_runs={options.inputs}", f"-timeout={LIMIT_S}", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], lambda data: target.feed(data) and None)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
