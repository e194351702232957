"""A search that is to run on a cluster, packed for it: its file, and the data that travels with it.

Files of data, suites and error functions of one's own are small, and lie where they are written:
they go along. Checkpoints stay where they are, and every node has to read them there. What a job
writes has to outlive the node that it runs on, so that output and ledger are addresses, or lie on a
disk that all nodes share.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.examination import NodeQuestions
from ztom.checkpoints.reference import is_address
from ztom.errors import ConfigError
from ztom.io.yaml import dump_yaml
from ztom.plugins import is_import_path
from ztom.search.config import SearchConfig
from ztom.search.config_files import parse_config, read_content
from ztom.search.inputs import chain_config

#: Name of the search's file in the job's folder.
FILE = "search.yaml"
#: Bytes that may travel with a job: Ray keeps them in the memory of the head.
MOST_BYTES = 64 * 2**20
_DATA_KEYS = ("stimuli", "expected_outputs", "holdout", "holdout_expected_outputs")
_FILES_OF_STORES = ("gs://", "s3://")


@dataclass(frozen=True, slots=True)
class Submission:
    """A search, ready to be submitted.

    Attributes:
        name: Name of the study.
        folder: Folder that the job starts in a copy of.
        output: Folder that the search writes to: an address, or a path that all nodes share.
        ledger: SQLAlchemy address of the ledger.
        questions: What every node has to read and reach.
    """

    name: str
    folder: Path
    output: str
    ledger: str
    questions: NodeQuestions


@dataclass(slots=True)
class _Luggage:
    """What travels with a job."""

    folder: Path
    bytes: int = 0
    names: set[str] = field(default_factory=set)

    def pack(self, path: Path, *, name: str | None = None) -> str:
        """Copy a file or a folder; returns its path in the job's folder."""
        name = name or self._free_name(path.name)
        size = sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else 0
        self.bytes += size or path.stat().st_size
        if self.bytes > MOST_BYTES:
            raise ConfigError(
                "too much would travel with the search",
                got=f"more than {MOST_BYTES // 2**20} MiB, with {path}",
                fix="Put its data into a bucket, and name them by their addresses.",
            )
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copyfile(path, target)
        return name

    def _free_name(self, name: str) -> str:
        number = 0
        while (candidate := f"files/{number}/{name}") in self.names:
            number += 1
        self.names.add(candidate)
        return candidate


def pack_search(
    file: Path,
    overrides: Sequence[str],
    folder: Path,
    *,
    ledger: str | None = None,
    storage: str | None = None,
) -> Submission:
    """Pack a search for a cluster.

    Args:
        file: YAML file of the search, as ``ztom search`` takes it.
        overrides: ``key=value`` each.
        folder: Empty folder for what travels.
        ledger: SQLAlchemy address of the ledger, instead of the file's.
        storage: Address of the folder under which searches write, unless the file names an output.

    Raises:
        ConfigError: The file is wrong, a file that it names is not there, or output or ledger would
            be on one node alone.
    """
    content = read_content(file, overrides)
    name = str(content.setdefault("name", file.stem))
    output = _output(content, storage)
    ledger = _ledger(content, ledger)
    home = file.absolute().parent
    # here only what it says is checked; where it writes is looked at from the cluster
    checked = {**content, "output": f"runs/{name}", "ledger": None}
    config = parse_config(checked, folder=home, source=str(file))
    chain = chain_config(config)
    packed = _packed(content, config, _Luggage(folder), home)
    packed |= {
        "chain": chain.model_dump(mode="json", exclude_defaults=True),
        "output": output,
        "ledger": ledger,
    }
    (folder / FILE).write_text(dump_yaml(packed), encoding="utf-8")
    files = tuple(place for place in _data_places(packed) if place.startswith(_FILES_OF_STORES))
    questions = NodeQuestions(
        places=tuple(member.reference for member in chain.checkpoints),
        files=files,
        ledger=ledger,
        shared=None if is_address(output) else output,
    )
    return Submission(name, folder, output, ledger, questions)


def _packed(
    content: Mapping[str, Any], config: SearchConfig, luggage: _Luggage, home: Path
) -> dict[str, Any]:
    """The file's content, its local paths replaced by where what they name travels."""
    packed = _with_data(content, luggage, home)
    if content.get("guardrails"):
        packed["guardrails"] = [_with_data(rail, luggage, home) for rail in content["guardrails"]]
    if content.get("suites"):
        packed["suites"] = [_travelling(suite, luggage, home) for suite in content["suites"]]
    functions = [term.function for data in (config, *config.guardrails) for term in data.error]
    for module in sorted({name.partition(".")[0] for name in functions if is_import_path(name)}):
        module = module.partition(":")[0]
        for path in (home / f"{module}.py", home / module):
            if path.exists():  # else it is installed, there as here
                luggage.pack(path, name=path.name)
    return packed


def _with_data(data: Mapping[str, Any], luggage: _Luggage, home: Path) -> dict[str, Any]:
    places = {key: data[key] for key in _DATA_KEYS if data.get(key)}
    return {**data, **{key: _travelling(place, luggage, home) for key, place in places.items()}}


def _travelling(place: object, luggage: _Luggage, home: Path) -> str:
    text = str(place)
    if is_address(text):
        return text
    path = home / Path(text).expanduser()
    if not path.exists():
        raise ConfigError("a file of the search is not there", got=str(path))
    return luggage.pack(path)


def _data_places(content: Mapping[str, Any]) -> Iterator[str]:
    for data in (content, *content.get("guardrails", ())):
        yield from (str(data[key]) for key in _DATA_KEYS if data.get(key))


def _output(content: Mapping[str, Any], storage: str | None) -> str:
    """Where the search writes.

    Raises:
        ConfigError: Nobody says, or it is a path of this machine.
    """
    output = content.get("output")
    if output is None and storage is not None:
        output = f"{storage.rstrip('/')}/runs/{content['name']}"
    if output is None or not (is_address(str(output)) or Path(str(output)).is_absolute()):
        raise ConfigError(
            "the search's output would be on one node of the cluster alone",
            got="none is named" if output is None else str(output),
            expected="an address, or the whole path of a folder that all nodes share",
            fix="Give --storage gs://BUCKET/FOLDER, or output in the search's file.",
        )
    return str(output)


def _ledger(content: Mapping[str, Any], ledger: str | None) -> str:
    """Address of the ledger.

    Raises:
        ConfigError: Nobody says, or it is a file.
    """
    address = ledger if ledger is not None else content.get("ledger")
    if address is None or "://" not in str(address) or str(address).startswith("sqlite"):
        raise ConfigError(
            "the search's ledger would be on one node of the cluster alone",
            got="none is named" if address is None else str(address),
            expected="the address of a database that every node reaches",
            fix="Give --ledger postgresql+psycopg://USER@HOST/DATABASE.",
        )
    return str(address)
