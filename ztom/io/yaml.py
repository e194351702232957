"""YAML that a person wrote, read strictly: nothing overwritten in silence, nothing that grows.

Refused are keys given twice (of two floors the second would win), aliases (a few lines of them are
gigabytes), and what JSON has not: dates, NaN and infinities, half surrogate pairs. Every file that
a person writes is read here, so that all of them are refused for the same reasons.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ztom.errors import ConfigError, ZtomError

_MERGE = "tag:yaml.org,2002:merge"


#: Brackets in brackets: the scanner's time grows with their square (3,000 of them: a second).
_DEEPEST = 100


class _Loader(yaml.SafeLoader):
    flow_level: int

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested too deeply (more than {_DEEPEST} brackets)",
                problem_mark=self.get_mark(),
            )
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias; write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            for name in self._names(key):
                if name in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"a key twice ({key.value})", problem_mark=key.start_mark
                    )
            seen.update(self._names(key))
        return super().construct_mapping(node, deep=deep)

    def _names(self, key: yaml.Node) -> set[Hashable]:
        """A key as it is written and as it is read: ``yes`` and ``true`` are one key."""
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            return {str(key.value)}
        return {str(key.value), self.construct_object(key)}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def parse_yaml(
    text: str,
    *,
    source: object,
    kind: type[ZtomError] = ConfigError,
    json_only: bool = True,
    line: int = 1,
) -> Any:
    """The value that ``text`` is.

    Args:
        text: A whole document.
        source: Name of the document in errors: a file, an option.
        kind: The class of the errors.
        json_only: Whether to refuse values that JSON has not.
        line: Number of the line that errors name where no other line is to blame, from 1.

    Raises:
        ZtomError: It is not YAML, or holds something that is refused; of ``kind``, it names the
            line.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is not None:
            line = error.problem_mark.line + 1
        raise kind(f"{source}, line {line}: not usable YAML", reason=error.problem) from None
    except (yaml.YAMLError, ValueError) as error:
        raise kind(f"{source}, line {line}: not usable YAML", reason=error) from None
    except RecursionError:
        raise kind(f"{source}, line {line}: YAML is nested too deeply") from None
    if json_only:
        _require_json(value, where=f"{source}, line {line}", kind=kind)
    return value


def read_yaml(path: Path, *, kind: type[ZtomError] = ConfigError, json_only: bool = True) -> Any:
    """The value that a file holds; see `parse_yaml`.

    Raises:
        ZtomError: The file cannot be read, or what it holds is refused; of ``kind``.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise kind(f"{path} cannot be read", reason=error.strerror) from error
    except UnicodeDecodeError as error:
        raise kind(
            f"{path} cannot be read", reason=error, expected="UTF-8", fix="Save it as UTF-8."
        ) from error
    return parse_yaml(text, source=path, kind=kind, json_only=json_only)


def dump_yaml(content: object) -> str:
    """Text that `parse_yaml` reads: what occurs twice is written twice, not as an alias."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def _require_json(value: object, *, where: str, kind: type[ZtomError]) -> None:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise kind(
            f"{where}: a value that JSON has not", reason=error, fix="Put a date in quotes."
        ) from None
