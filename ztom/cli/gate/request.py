"""What was asked of ``ztom gate``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ztom.errors import ConfigError
from ztom.io.places import StoragePlace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ztom.evaluation.runs.results import SuiteRun

Who = Literal["candidate", "champion", "base"]
WHO: tuple[Who, ...] = ("candidate", "champion", "base")
#: Results of each side that there is.
Runs: TypeAlias = "dict[Who, Sequence[SuiteRun]]"
#: What a gate writes beside the results; ``verdict.json`` is the last of them.
DOCUMENTS = ("verdict.html", "verdict.md", "junit.xml", "verdict.json")


@dataclass(frozen=True)
class GateRequest:
    """What was asked for on the command line.

    Attributes:
        models: A variant or checkpoint of each side; None where there is none, or results.
        runs: Files or folders of results of each side.
        suites: Suites, or folders of suites.
        first: There is no champion yet.
        engine: Fields of `ztom.engines.config.EngineConfig`.
        out: Where verdict and results go.
        seed: Everything random is drawn by it.
        use_cache: Whether known answers are used and new ones kept.
        as_json: Whether the verdict is printed as one JSON document.
        sign: File of the private key that signs the verdict, or ``env:NAME`` of a variable that
            holds it; None leaves the verdict unsigned.
    """

    models: Mapping[Who, str | None]
    runs: Mapping[Who, Sequence[Path]]
    suites: Sequence[Path]
    first: bool
    engine: Mapping[str, object]
    out: StoragePlace
    seed: int
    use_cache: bool
    as_json: bool = False
    sign: str | None = None

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: It does.
        """
        for who in WHO:
            if self.models[who] is not None and self.runs[who]:
                raise ConfigError(f"there are --{who} and --{who}-run", expected="one of them")
        if not self.has("candidate"):
            raise ConfigError("there is no candidate", fix="Give --candidate or --candidate-run.")
        if self.first and self.has("champion"):
            raise ConfigError("--first says that there is no champion", got="a champion")

    def has(self, who: Who) -> bool:
        """Whether there is a model or a result of a side."""
        return self.models[who] is not None or bool(self.runs[who])


def key_of(sign: str) -> Ed25519PrivateKey:
    """The private key that ``--sign`` names.

    Raises:
        SignatureError: It is no ed25519 key, or others can read its file.
    """
    from ztom.io.signatures import parse_signing_key, read_signing_key  # it takes pydantic

    name = sign.removeprefix("env:")
    if name == sign:
        return read_signing_key(Path(sign).expanduser())
    return parse_signing_key(os.environ.get(name, "").encode(), what=f"the variable {name}")


class System(StrEnum):
    """For which system a workflow is written."""

    GITHUB = "github"
    GITLAB = "gitlab"
