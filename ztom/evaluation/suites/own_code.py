"""The code of a suite's own metric, as far as it belongs to the suite.

A metric ``pass_at_1`` or ``user`` is looked for beside ``suite.yaml`` first. Where its module lies
there, its file is part of what was agreed on: its sha256 goes into the suite's digest and its lock.
What that file imports is not covered, and neither is a function from elsewhere, an installed
package or the working folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ztom.errors import EvaluationError
from ztom.evaluation.suites.suite import SuiteConfig


def code_digest(folder: Path, config: SuiteConfig) -> str | None:
    """sha256 of the file with the suite's function, lower-case hex; None where none lies there.

    Raises:
        EvaluationError: The file cannot be read.
    """
    file = _module_file(folder, config)
    if file is None:
        return None
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise EvaluationError(
            f"{file} cannot be read: {error.strerror}",
            expected=f"the code of {config.function}",
            fix="Make it readable, or name another function in suite.yaml.",
        ) from error


def _module_file(folder: Path, config: SuiteConfig) -> Path | None:
    """Where Python finds the module in the folder; a package comes before a file of its name."""
    if config.function is None:
        return None
    module = folder.joinpath(*config.function.partition(":")[0].split("."))
    candidates = (module / "__init__.py", module.with_name(f"{module.name}.py"))
    return next((file for file in candidates if file.is_file()), None)
