"""The one error tree of Z-TOM.

Every error says what went wrong, what was found, what was expected and what to do about it, is also
a standard exception type, and survives pickling (Ray sends errors between processes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypedDict, TypeVar, Unpack


class ErrorParts(TypedDict, total=False):
    """What an error says besides what is wrong; see `ZtomError`."""

    got: object
    expected: object
    fix: str | None
    reason: object


class ZtomError(Exception):
    """Base of every error that Z-TOM raises on purpose.

    The message is ``what: reason, got ..., expected .... fix``, without what is None.

    Args:
        what: What is wrong, with the name of the thing (file, tensor, option).
        got: Value that was found; rendered with ``str`` and cut at 500 characters.
        expected: What would have been right.
        fix: What the reader can do about it, a full sentence.
        reason: Why, in words, such as another error's; rendered like ``got``.
    """

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
        reason: object = None,
    ) -> None:
        self.what = what
        self.got = None if got is None else _printable(got)
        self.expected = None if expected is None else _printable(expected)
        self.fix = fix
        self.reason = None if reason is None else _printable(reason)
        super().__init__(self._message())

    def _message(self) -> str:
        details = []
        if self.reason:
            details.append(self.reason.rstrip(". "))
        if self.got is not None:
            details.append(f"got {self.got}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        text = _printable(self.what)
        if details:
            text = f"{text}: {', '.join(details)}"
        if self.fix:
            text = f"{text}. {self.fix}"
        return text

    def __str__(self) -> str:
        return self._message()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), *self.parts))

    @property
    def parts(self) -> tuple[str, str | None, str | None, str | None, str | None]:
        """What, got, expected, fix and reason."""
        return (self.what, self.got, self.expected, self.fix, self.reason)

    @classmethod
    def _from_parts(
        cls,
        what: str,
        got: str | None,
        expected: str | None,
        fix: str | None,
        reason: str | None,
    ) -> Self:
        return cls(what, got=got, expected=expected, fix=fix, reason=reason)


ErrorType = TypeVar("ErrorType", bound=ZtomError)


def _rebuild(
    kind: type[ZtomError],
    what: str,
    got: str | None,
    expected: str | None,
    fix: str | None,
    reason: str | None = None,
) -> ZtomError:
    return kind._from_parts(what, got, expected, fix, reason)


def with_text(error: ErrorType, change: Callable[[str], str]) -> ErrorType:
    """The same error with its words changed: what a path is called for whoever reads it.

    Args:
        error: Error to be told in other words.
        change: Function that gives the text to say instead of another one.
    """
    what, *others = error.parts
    got, expected, fix, reason = (None if part is None else change(part) for part in others)
    return type(error)._from_parts(change(what), got, expected, fix, reason)


def _printable(value: object) -> str:
    """Text without control characters (no forged log lines, no terminal escapes)."""
    text = str(value)
    if len(text) > 500:
        text = text[:497] + "..."
    return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class ConfigError(ZtomError, ValueError):
    """A configuration or command-line value is wrong."""


class GateRefusedError(ConfigError):
    """The gate has not passed what somebody wants to have traffic."""


class StorageError(ZtomError, OSError):
    """A store could not be read or written; trying again may help."""


class NothingThereError(StorageError, FileNotFoundError):
    """There is nothing where somebody pointed to: trying again does not help."""


class CheckpointError(ZtomError, ValueError):
    """A checkpoint cannot be used as it is."""


class ReferenceRefusedError(CheckpointError):
    """A reference names a scheme, root or path that is not allowed."""


class ArchiveError(CheckpointError):
    """A tar archive holds something that is never unpacked."""


class TensorFileError(CheckpointError):
    """A safetensors file is malformed or holds something that is not allowed."""


class ContentChangedError(CheckpointError):
    """The content behind a pinned reference is no longer the same."""


class AdapterUnsupportedError(CheckpointError):
    """A PEFT adapter uses something that cannot be blended exactly."""


class ChainError(ZtomError, ValueError):
    """A chain is malformed."""


class IncompatibleChainError(ChainError):
    """The members of a chain do not fit together."""


class FactorError(ZtomError, ValueError):
    """Scaling factors are malformed or outside their bounds."""


class BlendError(ZtomError, ArithmeticError):
    """A blend produced values that cannot be deployed (NaN, infinity, overflow)."""


class StimuliError(ZtomError, ValueError):
    """Stimuli or expected outputs are malformed; names the file and the line."""


class LeakageError(StimuliError):
    """The holdout shares stimuli, or near-duplicates of them, with the search set."""


class ScoringError(ZtomError, RuntimeError):
    """An error function could not produce a finite number."""


class EngineError(ZtomError, RuntimeError):
    """An engine failed."""


class CapabilityError(EngineError):
    """An engine was asked for something that it does not offer."""


class PromptError(CapabilityError):
    """A model cannot take one prompt, such as one too long; it takes others."""


class EngineTimeoutError(EngineError, TimeoutError):
    """An engine made no progress before its deadline."""


class ClusterEndedError(EngineError):
    """The Ray that something ran on has ended; started again, it goes on."""


class LedgerError(ZtomError, RuntimeError):
    """The ledger refused or could not complete an operation."""


class NotOnRecordError(LedgerError, LookupError):
    """The ledger holds no such thing, or not for whoever asks."""


class AlreadyOnRecordError(LedgerError):
    """The ledger holds another thing of this name, or one that is in the way."""


class AuditError(LedgerError):
    """The audit chain does not hold together, or its signed head does not fit."""


class SignatureError(ZtomError, ValueError):
    """A signature does not fit what it is under, is of another key, or a key cannot be used."""


class QuotaError(ZtomError, RuntimeError):
    """An account holds as much of a server as it may.

    Attributes:
        wait_s: Seconds after which it may be less; None where waiting alone does not help.
    """

    def __init__(
        self, what: str, *, wait_s: int | None = None, **parts: Unpack[ErrorParts]
    ) -> None:
        super().__init__(what, **parts)
        self.wait_s = wait_s

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"wait_s": self.wait_s})


class ServerError(ZtomError, RuntimeError):
    """A server refused a call, or could not be reached.

    Attributes:
        status: HTTP status of the refusal; None where no answer came.
    """

    def __init__(
        self, what: str, *, status: int | None = None, **parts: Unpack[ErrorParts]
    ) -> None:
        super().__init__(what, **parts)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"status": self.status})


class SearchError(ZtomError, RuntimeError):
    """A search could not be completed."""


class EvaluationError(ZtomError, ValueError):
    """A suite, its lock or results on it are malformed, or do not fit together."""


class VariantError(ZtomError, ValueError):
    """A variant is not whole, or is not what its manifest says."""
