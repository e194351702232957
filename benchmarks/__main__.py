"""Run every benchmark, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = (
    "blend_bandwidth",
    "write_memory",
    "evaluation_phases",
    "plan_measured",
    "trial_overhead",
    "samplers",
    "serve",
    "control_plane",
    "warm_engine",
    "rollout",
    "gate_calibration",
    "faults",
    "density",
    "eval_overhead",
    "attacks",
    "chaos",
)


def main() -> int:
    """Run those named on the command line, or all; returns the exit status."""
    folder = Path(__file__).parent
    failed = []
    for name in sys.argv[1:] or NAMES:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, str(folder / f"{name}.py")], check=False)
        if done.returncode:
            failed.append(name)
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
