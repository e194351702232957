"""The user's own error function: ``package.module:function``.

    def my_error(prompts: list[str], outputs: list[str], expected: list[str]) -> list[float]:
        ...  # one error per stimulus, lower is better

It is imported from the working folder or PYTHONPATH and called in a process of its own, with few
rights (`ztom.scoring.containment`), which it cannot leave: if it raises, hangs past its deadline,
dies, prints without end or returns something else than finite numbers, that call fails with a
`ScoringError` and the next one gets a fresh process.

It may also return one number for the whole set. That is enough to search with, but not to prove
anything: one number cannot be resampled, so the verdict on it is always inconclusive. Return one
error per stimulus where you can.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ztom.errors import ConfigError, ScoringError
from ztom.scoring.protocol import Need
from ztom.scoring.text import generated_text
from ztom.scoring.user_process import ChildProcess, Limits
from ztom.scoring.user_reply import ChildFailedError, ChildLateError, ChildReply
from ztom.statistics.scores import MeanScores, Scores, WholeSetScores
from ztom.stimuli.prompts import prompt_text
from ztom.stimuli.records import Output, Stimulus

logger = logging.getLogger(__name__)

_RIGHTS = (
    "It may read installed packages, the folders that it is imported from and cached models, and "
    "write to its temporary folder. `reads` names more, and `network: true` lets it call out "
    "(of an error term; ZTOM_FUNCTION_READS and ZTOM_FUNCTION_NETWORK for all)."
)


class UserFunction:
    """An error function of the user's, in a child process that lives from call to call.

    May be pickled: the copy starts a process of its own, with this one's import path.

    Args:
        target: Name of the function, ``package.module:function``.
        deadline_s: Seconds for one call, and for starting and importing before the first.
        memory_bytes: Memory that it may allocate, bytes.
        pass_environment: Names of environment variables it may see beyond the harmless ones.
        import_paths: Folders that it is imported from; by default the working folder, then
            PYTHONPATH.
        limits: All limits of the process, instead of ``memory_bytes``.
        booleans: Whether to take True and False for 1 and 0. Not for errors: who returns whether an
            output is right would get the error of a wrong one.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline_s: float = 60.0,
        memory_bytes: int = 8 * 2**30,
        pass_environment: Sequence[str] = (),
        import_paths: Sequence[str] | None = None,
        limits: Limits | None = None,
        booleans: bool = False,
    ) -> None:
        self._target = target
        self._deadline_s = deadline_s
        self._limits = limits or Limits(memory_bytes=memory_bytes)
        self._booleans = booleans
        self._pass_environment = tuple(pass_environment)
        self._import_paths = _import_paths() if import_paths is None else tuple(import_paths)
        self._reset()

    def _reset(self) -> None:
        self._child: ChildProcess | None = None
        self._owner = os.getpid()
        self._calls = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(self.__dict__)
        for name in ("_child", "_owner", "_calls", "_lock"):
            del kept[name]
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def name(self) -> str:
        """``package.module:function``."""
        return self._target

    @property
    def needs(self) -> frozenset[Need]:
        """Generated text."""
        return frozenset({Need.TEXT})

    def check(self) -> None:
        """Import the function once, in a process that is ended again.

        Raises:
            ConfigError: It cannot be imported.
        """
        try:
            self._start().close()
        except ScoringError as error:
            raise ConfigError(
                error.what, got=error.got, fix=error.fix, reason=error.reason
            ) from error

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Call the user's function.

        Raises:
            ScoringError: It raised, hung, died, or returned something else than finite numbers.
        """
        if not stimuli:
            raise ScoringError(f"{self.name} was given no stimuli", expected="at least one")
        arguments = [
            [prompt_text(stimulus.prompt) for stimulus in stimuli],
            [
                generated_text(s, o, function=self.name)
                for s, o in zip(stimuli, outputs, strict=True)
            ],
            [stimulus.expected for stimulus in stimuli],
        ]
        with self._lock:
            result = self._called(arguments)
        return self._scores(result, stimuli)

    def close(self) -> None:
        """End the child process; the next call starts another."""
        with self._lock:
            if self._child is not None and self._owner == os.getpid():
                self._child.close()
            self._child = None

    def _called(self, arguments: list[list[str]]) -> object:
        if self._child is None or self._owner != os.getpid():  # after a fork it is not our child
            self._child, self._owner = self._start(), os.getpid()
            weakref.finalize(self, _close_in, os.getpid(), self._child)
        self._calls += 1
        try:
            reply = self._child.call(
                {"call": self._calls, "arguments": arguments}, deadline_s=self._deadline_s
            )
        except BaseException as error:
            self._child = None
            if isinstance(error, ChildFailedError):
                raise self._failure(error) from error
            raise
        if reply.error is not None:
            raise self._raised(reply)
        if reply.call != self._calls:
            self._child.close()
            self._child = None
            raise ScoringError(f"{self.name}: its process answered another call")
        return reply.result

    def _start(self) -> ChildProcess:
        try:
            child = ChildProcess(
                self._target,
                import_paths=self._import_paths,
                limits=self._limits,
                pass_environment=self._pass_environment,
                deadline_s=self._deadline_s,
                booleans=self._booleans,
            )
        except ChildFailedError as error:
            raise self._failure(error) from error
        if child.started.error is not None:
            child.close()
            failure = self._raised(child.started, doing="cannot be imported:")
            failure.fix = f"It is looked for in {', '.join(self._import_paths)}."
            raise failure
        return child

    def _failure(self, error: ChildFailedError) -> ScoringError:
        deadline = f" of {self._deadline_s:g} s" if isinstance(error, ChildLateError) else ""
        return ScoringError(
            f"error function {self.name}: {error}{deadline}",
            got=f"last printed: {_telling(error.tail)}" if error.tail else None,
        )

    def _raised(self, reply: ChildReply, *, doing: str = "raised") -> ScoringError:
        place = f" ({reply.place})" if reply.place else ""
        return ScoringError(
            f"error function {self.name} {doing} {reply.error}{place}",
            reason=reply.message or None,
            fix=_RIGHTS if reply.error == "PermissionError" else None,
        )

    def _scores(self, result: object, stimuli: Sequence[Stimulus]) -> Scores:
        if isinstance(result, float):
            self._check_finite([result], ["the whole set"])
            return WholeSetScores(result, len(stimuli))
        if not isinstance(result, list) or not all(isinstance(item, float) for item in result):
            raise ScoringError(f"error function {self.name} did not return numbers")
        if len(result) != len(stimuli):
            raise ScoringError(
                f"error function {self.name} returned the wrong number of errors",
                got=len(result),
                expected=f"{len(stimuli)}, one per stimulus",
            )
        self._check_finite(result, [stimulus.id for stimulus in stimuli])
        return MeanScores(np.array(result, dtype=np.float64))

    def _check_finite(self, errors: Sequence[float], names: Sequence[str]) -> None:
        bad = [i for i, error in enumerate(errors) if not math.isfinite(error)]
        if bad:
            raise ScoringError(
                f"error function {self.name} returned {len(bad)} of {len(errors)} errors that are "
                "not finite numbers",
                got=f"{errors[bad[0]]} (first: {names[bad[0]]})",
            )


def _telling(tail: str) -> str:
    """The most telling part of what was last printed: a crash report's start, else the end."""
    crash = tail.find("Fatal Python error")
    return tail[-300:] if crash < 0 else tail[crash : crash + 300]


def _import_paths() -> tuple[str, ...]:
    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return tuple(dict.fromkeys(os.path.abspath(path) for path in (".", *filter(None, listed))))


def _close_in(owner: int, child: ChildProcess) -> None:
    """Close ``child`` unless this is a fork of the process that it belongs to."""
    if os.getpid() == owner:
        child.close()
