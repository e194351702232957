"""Analyses of a project's chain, from Python: checkpoints compared, and asked.

```python
with Client("http://127.0.0.1:8000") as client:
    moved = client.analyses.static("support", "week-2")
    answers = client.analyses.inference("support/week-2", "prompt.json")
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from ztom.client.connection import Connection
from ztom.client.names import Names
from ztom.errors import ConfigError
from ztom.wire.analyses import (
    Inference,
    InferenceAnswer,
    InferenceBatch,
    Sensitivity,
    SensitivityAnswer,
    SensitivityBatch,
    StaticAnalysis,
    StaticAnswer,
)
from ztom.wire.factor_groups import rule_of
from ztom.wire.projects import Project

_Answer = TypeVar("_Answer", InferenceAnswer, SensitivityAnswer)


class AnalysisCalls:
    """Part of `ztom.client.Client`; what it returns is what the server answers.

    Further fields of a request are taken by name, as in `ztom.wire.analyses`:
    ``inference_config_json``, ``batch_size``, ``allow_config_differences``,
    ``allow_tokenizer_differences``.

    Args:
        connection: Connection to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names = Names(connection)

    def static(
        self,
        project_id: str,
        file_id: str,
        *,
        comparison: Literal["CHOSEN", "LATEST"] = "CHOSEN",
        **fields: Any,
    ) -> StaticAnswer:
        """How far a checkpoint is from another, tensor by tensor.

        Args:
            project_id: Id or name of the project.
            file_id: Id, tag or name of the checkpoint.
            comparison: ``CHOSEN`` compares it with the one before it, ``LATEST`` with the last.
            fields: Further fields, ``weight_names`` and ``bias_names`` among them.
        """
        project_id = self._names.project_id(project_id)
        request = StaticAnalysis.model_construct(
            project_id=project_id,
            file_id=self._names.file_id(project_id, file_id),
            comparison_type=comparison,
            **fields,
        )
        return self._connection.ask(StaticAnswer, "POST", "/static_analysis", request)

    def inference(
        self, model_path: str, stimuli: str | Path | Sequence[str | Path], **fields: Any
    ) -> InferenceAnswer:
        """What a checkpoint answers.

        Args:
            model_path: ``PROJECT/FILE`` by ids or names, ``PROJECT/results/REQUEST.tar``, or an
                address under the operator's roots.
            stimuli: A file of this machine, which is sent, or paths of the server.
            fields: Further fields, ``base_model_path`` among them.

        Raises:
            ConfigError: Several files are of this machine, besides what every method raises.
        """
        here = _file_here(stimuli)
        fields["model_path"] = self._path(model_path)
        if here is not None:
            request = Inference.model_construct(**fields)
            return self._send(InferenceAnswer, "inference", request, here)
        batch = InferenceBatch.model_construct(stimulus_paths=_paths(stimuli), **fields)
        route = "/dynamic_analysis/inference/batch"
        return self._connection.ask(InferenceAnswer, "POST", route, batch)

    def sensitivity(
        self,
        project_id: str,
        file_id: str,
        factor: float | Sequence[float],
        stimuli: str | Path | Sequence[str | Path],
        *,
        groups: Mapping[str, object] | str | None = None,
        **fields: Any,
    ) -> SensitivityAnswer:
        """What the latest checkpoint answers, and what it does with one step scaled.

        Args:
            project_id: Id or name of the project.
            file_id: Id, tag or name of the checkpoint that the step ends in.
            factor: Scaling factor of the step: 0 leaves it, -1 removes it, 1 applies it twice. With
                groups the factors of all steps and groups, a flat list as a search answers with.
            stimuli: A file of this machine, which is sent, or paths of the server.
            groups: Groups of tensors that have factors of their own, as ``factors.groups`` of a
                search.
            fields: Further fields.

        Raises:
            ConfigError: Several files are of this machine, besides what every method raises.
        """
        here = _file_here(stimuli)
        project_id = self._names.project_id(project_id)
        fields |= {
            "project_id": project_id,
            "file_id": self._names.file_id(project_id, file_id),
        }
        if isinstance(factor, int | float):
            fields["scaling_factor"] = factor
        else:
            fields |= {"scaling_factors": tuple(factor), "factor_groups": rule_of(groups)}
        if here is not None:
            request = Sensitivity.model_construct(**fields)
            return self._send(SensitivityAnswer, "sensitivity", request, here)
        batch = SensitivityBatch.model_construct(stimulus_paths=_paths(stimuli), **fields)
        route = "/dynamic_analysis/sensitivity/batch"
        return self._connection.ask(SensitivityAnswer, "POST", route, batch)

    def _send(
        self, answers: type[_Answer], route: str, request: Inference | Sensitivity, file: Path
    ) -> _Answer:
        return self._connection.ask(
            answers,
            "POST",
            f"/dynamic_analysis/{route}",
            data={key: _form_text(value) for key, value in request.body().items()},
            files={"file": (file.name, file.read_bytes())},
        )

    def _path(self, model_path: str) -> str:
        """A path of the server's own with ids, where it was given with names."""
        project, slash, rest = model_path.partition("/")
        is_result = rest.startswith("results/")
        if not slash or not project or "://" in model_path or ("/" in rest and not is_result):
            return model_path
        known = self._connection.ask_all(Project, "GET", "/project")
        if not any(project in (entry.id, entry.name) for entry in known):
            return model_path  # a folder of the server's, or a name on the Hub
        project_id = self._names.project_id(project)
        return f"{project_id}/{rest if is_result else self._names.file_id(project_id, rest)}"


def _file_here(stimuli: str | Path | Sequence[str | Path]) -> Path | None:
    """The one file of this machine that stimuli are; None where all are the server's.

    Raises:
        ConfigError: Several are named, and one of them is here.
    """
    files = [stimuli] if isinstance(stimuli, str | Path) else list(stimuli)
    here = [file for file in files if isinstance(file, Path) or _is_file_here(file)]
    if here and len(files) > 1:
        raise ConfigError(
            "one file of this machine is sent at most",
            got=f"{len(files)}, {here[0]} among them",
            fix="Put the stimuli into one JSONL file, or name paths of the server.",
        )
    return Path(here[0]) if here else None


def _is_file_here(file: str) -> bool:
    return "://" not in file and Path(file).is_file()


def _paths(stimuli: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return (str(stimuli),) if isinstance(stimuli, str | Path) else tuple(map(str, stimuli))


def _form_text(value: Any) -> str:
    """A value as forms have it: lists comma-joined, dicts as JSON."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, Mapping | bool) else str(value)
