"""A chain as a person writes it: in YAML, before any checkpoint is opened.

Reading one needs no torch, so a wrong file is refused at once; opening the checkpoints that it
names is `ztom.blending.chain`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.blending.trainer_folder import TrainerRun, is_trainer_folder, read_trainer_folder
from ztom.checkpoints.reference import is_address
from ztom.checkpoints.storage import require_reachable
from ztom.errors import ChainError
from ztom.io.hub_address import is_bare_repo
from ztom.io.problems import check_model
from ztom.io.yaml import read_yaml
from ztom.settings import Settings

logger = logging.getLogger(__name__)

Topology = Literal["sequence", "siblings"]


class Member(BaseModel):
    """One checkpoint of a chain file.

    Attributes:
        reference: A folder, a tar of one, a ``gs://``, ``s3://`` or ``memory://`` address, a
            repository of the Hub (``org/name``, ``hf://org/name@revision/folder``), or a model of a
            registry.
        sha256: The digest that the checkpoint must have (``ztom inspect`` prints it).
        tag: A name for reports.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    tag: str | None = Field(default=None, min_length=1, max_length=200)


class ChainConfig(BaseModel):
    """A chain as written in YAML.

    Attributes:
        topology: ``sequence`` (each iteration trained from the one before it) or ``siblings``
            (every iteration trained from the base).
        checkpoints: The base first, then the iterations in training order.
        latest: Siblings only: position of the sibling that the steps are added to, last by default.
        allow_dtype_cast: Accept members stored in different dtypes; the blend is computed in
            float32 either way, and the cast is recorded in the recipe.
        allow_config_differences: Keys of ``config.json`` in which members may differ although that
            changes what their weights compute; the blend has the latest one's values.
        allow_tokenizer_differences: Accept tokenizers that split the same text differently, or in
            which a few ids were given other tokens; the blend has the latest one's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topology: Topology = "sequence"
    checkpoints: tuple[Member, ...] = Field(min_length=2)
    latest: int | None = Field(default=None, ge=1)
    allow_dtype_cast: bool = False
    allow_config_differences: tuple[str, ...] = ()
    allow_tokenizer_differences: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare_references(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("checkpoints"), list):
            members = [{"reference": m} if isinstance(m, str) else m for m in data["checkpoints"]]
            return {**data, "checkpoints": members}
        return data

    @model_validator(mode="after")
    def _latest_fits(self) -> ChainConfig:
        if self.latest is not None and self.topology == "sequence":
            raise ValueError(
                "latest is for siblings; a sequence always ends in its last checkpoint"
            )
        if self.latest is not None and self.latest >= len(self.checkpoints):
            raise ValueError(f"latest must be between 1 and {len(self.checkpoints) - 1}")
        return self


def read_chain_file(path: Path) -> ChainConfig:
    """Read a chain's YAML; relative references are taken from the file's own folder.

    A Trainer's output folder is read as the chain that ``ztom chain`` writes of it.

    Raises:
        ChainError: The file is not there, not YAML, says a key twice, or is not a chain.
    """
    if path.is_dir():
        return _read_folder(path)
    content = read_yaml(path, kind=ChainError)
    config = check_model(
        ChainConfig, content, wrong=f"chain file {path} is not a chain", kind=ChainError
    )
    return anchored(config, path.parent)


def _read_folder(folder: Path) -> ChainConfig:
    if not is_trainer_folder(folder):
        raise ChainError(
            f"{folder} is not a chain",
            got="a folder without checkpoint-N in it",
            expected="a YAML file that lists checkpoints, or the output folder of a Trainer",
        )
    run = read_trainer_folder(folder)
    for name, reason in run.left_out.items():
        logger.warning("%s: %s is not in the chain, %s", folder, name, reason)
    return trainer_chain(run)


def trainer_chain(run: TrainerRun) -> ChainConfig:
    """The chain of a Trainer's folder."""
    members = tuple(Member(reference=reference, tag=tag) for reference, tag in run.members)
    return ChainConfig(checkpoints=members)


def require_members(config: ChainConfig, *, settings: Settings) -> None:
    """Look whether the checkpoints of a chain are there, before torch is imported to open them.

    Raises:
        ReferenceRefusedError: A reference is not allowed.
        StorageError: There is nothing at a local one, or a store does not answer.
    """
    for member in config.checkpoints:
        require_reachable(member.reference, settings=settings)


def anchored(config: ChainConfig, folder: Path) -> ChainConfig:
    """The same chain with relative local references resolved against ``folder``."""
    members = [
        m.model_copy(update={"reference": _anchored(m.reference, folder)})
        for m in config.checkpoints
    ]
    return config.model_copy(update={"checkpoints": tuple(members)})


def _anchored(reference: str, folder: Path) -> str:
    if is_address(reference) or Path(reference).expanduser().is_absolute():
        return reference
    beside = (folder / reference).absolute()
    if is_bare_repo(reference) and not beside.exists() and not Path(reference).exists():
        return reference  # a name on the Hub
    return str(beside)
