"""Run the checks: `python -m deploy_checks [SUBJECT...]`."""

from __future__ import annotations

import importlib
import inspect
import sys
import time
from collections.abc import Callable, Iterator

from deploy_checks.tools import Skipped

#: In this order; what is quick comes first.
SUBJECTS = ("charts", "schemas", "rules", "entries", "images", "alerts", "machines", "policies")

Check = Callable[[], list[str]]


def checks(subjects: tuple[str, ...]) -> Iterator[tuple[str, Check]]:
    """Functions of the subjects' modules that are called `check_...`, in the order of the file."""
    for subject in subjects:
        module = importlib.import_module(f"deploy_checks.{subject}")
        for name, function in vars(module).items():
            if name.startswith("check_") and inspect.isfunction(function):
                yield f"{subject}.{name.removeprefix('check_')}", function


def main() -> int:
    """Run them and say how each ended; the exit status is 1 where one failed."""
    passed = failed = skipped = 0
    for name, check in checks(tuple(sys.argv[1:]) or SUBJECTS):
        began = time.monotonic()
        try:
            findings = check()
        except Skipped as reason:
            skipped += 1
            print(f"skipped {name}: {reason}", flush=True)
            continue
        except Exception as error:
            findings = [f"{type(error).__name__}: {error}"]
        failed += bool(findings)
        passed += not findings
        outcome = "FAILED" if findings else "passed"
        print(f"{outcome} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        for finding in findings:
            print(f"    {finding}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
