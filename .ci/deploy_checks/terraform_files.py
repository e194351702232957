"""Terraform's files as JSON: ``python terraform_files.py FOLDER``. Runs in the tools' environment.

Prints an object: what each file holds, by its name. A file that is none ends it with the parser's
message and status 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hcl2


def main() -> int:
    """Parse every file; returns the exit status."""
    files: dict[str, Any] = {}
    for path in sorted(Path(sys.argv[1]).rglob("*.tf")):
        try:
            files[path.name] = hcl2.loads(path.read_text(encoding="utf-8"))
        except Exception as error:  # the parser's own kinds of error, which have no common base
            sys.stderr.write(f"{path.name}: {' '.join(str(error).split())[:500]}\n")
            return 1
    json.dump(files, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
