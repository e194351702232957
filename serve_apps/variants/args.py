"""What can be set when variants are served: typed models, checked before anything starts.

`VariantArgs` is one full-weight variant: what ``serve run serve_apps.variants.app:build
variant=/path min_replicas=2`` fills from its ``key=value`` arguments and what ``ztom serve`` fills
from its options. `BaseArgs` is one base that many adapters share. What both have is
`ztom.rollout.options.ServingArgs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from ztom.errors import ConfigError
from ztom.io.places import StoragePlace, StoreAddress, parse_place
from ztom.io.problems import check_model
from ztom.rollout.options import ServingArgs

#: Of the one deployment in each application.
VARIANT_DEPLOYMENT, SHARED_DEPLOYMENT = "variant", "shared-base"
MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"


def _place(value: Any) -> Any:
    if not isinstance(value, str | Path | StoreAddress):
        return value
    try:
        return parse_place(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


#: Folder of a variant on this machine or a shared disk, or its address.
VariantPlace = Annotated[
    Path | StoreAddress,
    BeforeValidator(_place),
    PlainSerializer(str, return_type=str, when_used="json"),
]

Args = TypeVar("Args", bound=ServingArgs)


class VariantArgs(ServingArgs):
    """How one full-weight variant is served.

    Raises:
        pydantic.ValidationError: A value is missing, misspelt or out of range (`parse_args` turns
            this into a `ConfigError`).
    """

    variant: VariantPlace = Field(
        description="folder of the variant, with its manifest.json, or its gs://, s3:// address"
    )
    name: str | None = Field(
        default=None,
        pattern=MODEL_NAME_PATTERN,
        description="model name that clients use; the folder's name when not given",
    )
    live_swap: bool = Field(
        default=False,
        description="hold the variant's chain in memory, so that another blend of it can take its "
        "place without a restart",
    )

    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="origins whose pages may call the server of `ztom serve` from a browser, such "
        "as https://app.example.org; * is any",
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
                raise ValueError(f"{origin!r} is no origin: write it as https://host or with :port")
        return value

    @field_validator("variant")
    @classmethod
    def _absolute_folder(cls, value: StoragePlace) -> StoragePlace:
        if isinstance(value, StoreAddress):
            return value
        folder = value.expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f"there is no folder {str(folder)!r}")
        return folder


class BaseArgs(ServingArgs):
    """How one base is served that many adapters share.

    Raises:
        pydantic.ValidationError: A value is not allowed; see `VariantArgs`.
    """

    base: str = Field(min_length=1, description="folder or address of the base checkpoint")
    digest: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="digest that the base must have: recipe.members[0].sha256 of the adapters",
    )
    name: str | None = Field(
        default=None, pattern=MODEL_NAME_PATTERN, description="what the base is called"
    )
    max_loras: int = Field(
        default=8, ge=1, le=256, description="adapters that one batch can mix, kept on the device"
    )
    max_cpu_loras: int = Field(
        default=64, ge=1, le=10_000, description="adapters kept in host memory"
    )
    max_lora_rank: int = Field(
        default=64, ge=1, le=512, description="highest rank; memory on the device grows with it"
    )

    @model_validator(mode="after")
    def _room_for_a_batch(self) -> Self:
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(
                f"max_cpu_loras is {self.max_cpu_loras}, below max_loras {self.max_loras}"
            )
        return self


def parse_args(values: Mapping[str, object]) -> VariantArgs:
    """Check serving options.

    Raises:
        ConfigError: Names every option that is wrong.
    """
    return check_options(VariantArgs, values, "the serving options are wrong")


def check_options(model: type[Args], values: Mapping[str, object], wrong: str) -> Args:
    """Options as a model of them.

    Raises:
        ConfigError: Says ``wrong``, and names every option that is.
    """
    return check_model(model, dict(values), wrong=wrong, whole="options")
