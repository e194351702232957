"""What the operator of a server sets: one typed model, checked before anything starts.

``ztom up --set key=value`` and the environment (``ZTOM_SERVER_<KEY>``) fill it; what callers may
hold of a server is `serve_apps.control_plane.limit_settings`; limits and places that hold for the
command line too are `ztom.settings.Settings` (``ZTOM_ALLOWED_ROOTS`` and others).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from serve_apps.control_plane.limit_settings import LimitSettings
from serve_apps.endpoints.aliases import RESERVED_ALIASES
from ztom.engines.config import EngineConfig
from ztom.io.places import LEDGER_FIX, is_store_address, require_local


class ServerConfig(LimitSettings):
    """How one server works."""

    model_config = SettingsConfigDict(
        env_prefix="ZTOM_SERVER_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    data: Path = Field(default=Path("ztom-data"), description="where the server keeps everything")
    ledger: str | None = Field(
        default=None, description="SQLAlchemy address; ledger.db in the data folder when not given"
    )
    secret_file: Path | None = Field(
        default=None,
        description="file with a secret of 48 bytes or more, the same on every node, of which all "
        "keys are made; without it they are made once, and kept in the data folder or the database",
    )
    pointer_roots: tuple[str, ...] = Field(
        default=(),
        description="folders and addresses under which users may point to checkpoints and data; "
        "none unless the operator names some",
    )
    registration: Literal["invite", "open", "closed"] = Field(
        default="invite",
        description="invite: who registers needs an address that an administrator has invited; "
        "closed: only administrators make accounts",
    )
    aliases: Literal["any", "project-prefixed"] = Field(
        default="any",
        description="what a project may call a new endpoint; project-prefixed: the project's name, "
        "or what begins with it and a hyphen",
    )
    reserved_aliases: tuple[str, ...] = Field(
        default=RESERVED_ALIASES,
        description="names, * standing for anything, that only administrators give to endpoints",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="names under which the server is reached besides those of this machine for "
        "itself; any other Host is refused",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="web pages that may call the server; none unless named"
    )
    audit_head: str | None = Field(
        default=None,
        description="file or gs://, s3:// address to which the signed end of the audit chain is "
        "written when it has grown; somewhere that who can change the ledger cannot write",
    )
    token_hours: float = Field(default=12, gt=0, le=24 * 31, description="how long a login lasts")
    max_upload_bytes: int = Field(default=200 * 2**30, gt=0, description="longest upload")
    max_body_bytes: int = Field(default=8 * 2**20, gt=0, description="longest other body")
    http_replicas: int = Field(
        default=1,
        ge=1,
        le=256,
        description="processes that take requests in; more than one needs a ledger on PostgreSQL "
        "and a data folder that all of them see; they share every quota",
    )
    body_timeout_s: float = Field(
        default=30, gt=0, description="seconds a body may pause before it is given up"
    )
    drain_s: float = Field(
        default=25,
        ge=0,
        le=3600,
        description="seconds that a server which is stopped has for the requests in work; the "
        "grace period of what stops it has to be longer, by 5 s and more",
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="to models, by one user with all their keys"
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="of prompts and answers, by one user with all their keys"
    )
    max_answers: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="answers that one request may ask a model for: prompts times n",
    )
    max_request_tokens: int = Field(
        default=2**20,
        ge=1,
        description="tokens that one request may ask a model for: of its prompts, and of every "
        "answer at its longest",
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="what runs models unless a search says otherwise"
    )
    warm_engines: int = Field(
        default=1,
        ge=1,
        le=64,
        description="engines of inference and analyses that are loaded at once; the one that was "
        "idle the longest makes way",
    )
    idle_s: float = Field(
        default=300, gt=0, description="seconds without a question after which such an engine goes"
    )
    answer_timeout_s: float = Field(
        default=600,
        gt=0,
        description="seconds for one inference or analysis, the loading of its engine included",
    )
    gate_required: bool = Field(
        default=True,
        description="a variant without a verdict of the gate on record is not deployed unless "
        "insisted on; false lets it through where its search has proved it better",
    )
    signed_variants: bool = Field(
        default=False,
        description="whether a variant that neither this server nor a registered key has signed is "
        "not deployed",
    )
    max_searches: int | None = Field(
        default=None,
        ge=1,
        description="searches at once, taken in turn from the projects; as many as the cluster has "
        "engines for when not given",
    )
    search_attempts: int = Field(
        default=3, ge=1, description="times a search whose process died is started"
    )
    poll_s: float = Field(default=0.5, gt=0, description="seconds between looks at running work")

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return require_local(value, what="the data folder").expanduser().resolve()

    @field_validator("ledger")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        if value is not None and is_store_address(value):
            raise ValueError(f"the ledger is an address of a store: {value}. {LEDGER_FIX}")
        return value

    @property
    def ledger_address(self) -> str:
        """Where the ledger is."""
        return str(self.data / "ledger.db") if self.ledger is None else self.ledger

    @property
    def keys(self) -> Path:
        """The folder of the keys."""
        return self.data / "keys"
