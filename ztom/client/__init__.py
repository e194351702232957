"""Working with a Z-TOM server from Python: `Client`, and a callback that registers checkpoints.

``from ztom.client import Client`` needs neither Ray nor vLLM nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ztom.client.client import Client
from ztom.wire.files import ProjectFile
from ztom.wire.projects import Project
from ztom.wire.searches import SearchAnswer, Trial

if TYPE_CHECKING:
    from ztom.client.callback import RegisterCheckpoints

__all__ = ["Client", "Project", "ProjectFile", "RegisterCheckpoints", "SearchAnswer", "Trial"]


def __getattr__(name: str) -> Any:
    """Import transformers only for its callback."""
    if name == "RegisterCheckpoints":
        from ztom.client.callback import RegisterCheckpoints

        return RegisterCheckpoints
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
