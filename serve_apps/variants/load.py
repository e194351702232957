"""What an engine has done, and what it has in hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EngineLoad:
    """What an engine has done and has in hand.

    Attributes:
        steps: Scheduler steps since the start; it stands still only when the engine does.
        running: Sequences being generated.
        waiting: Sequences that wait to be scheduled.
        generated_tokens: Tokens generated since the start.
    """

    steps: int = 0
    running: int = 0
    waiting: int = 0
    generated_tokens: int = 0
