"""Settings from environment variables: what is wrong with one is said by the variable's name."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from ztom.errors import ConfigError
from ztom.io.problems import problem_sentence


class EnvironmentSettings(BaseSettings):
    """Settings whose variables begin with the ``env_prefix`` of the class below this one.

    Raises:
        ConfigError: A variable is not JSON where its value is a list or keys and values, or is not
            what the setting takes.
    """

    def __init__(self, **values: Any) -> None:
        prefix = str(self.model_config.get("env_prefix", "")).upper()
        try:
            super().__init__(**values)
        except SettingsError as error:
            field = _field_of(error, type(self))
            raise ConfigError(
                f"{prefix}{field.upper()} is not valid JSON",
                expected='a list or keys and values, as in \'["/models", "gs://team-models"]\'',
                fix="Quote the whole of it for the shell.",
            ) from None
        except ValidationError as error:
            raise ConfigError(
                f"the settings ({prefix}...) are wrong",
                reason=problem_sentence(error, values, model=type(self), quote=True),
            ) from error


def _field_of(error: SettingsError, settings: type[BaseSettings]) -> str:
    """The field that an error names, which is nowhere else."""
    names = [name for name in settings.model_fields if f'"{name}"' in str(error)]
    return names[0] if names else "..."
