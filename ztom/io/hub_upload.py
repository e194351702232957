"""A folder onto the Hugging Face Hub, as one commit that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztom.errors import ConfigError, StorageError
from ztom.io.hub import TIMEOUT_S, hub_client, hub_errors
from ztom.io.hub_address import HubAddress
from ztom.io.hub_errors import is_unreachable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: What the Hub itself puts into a repository.
_ITS_OWN = frozenset({".gitattributes"})


@dataclass(frozen=True, slots=True)
class HubUpload:
    """What is to stand in a model's repository, and nothing else.

    Attributes:
        files: Local file by its path in the repository.
        card: Text of the repository's README.md.
        mark: Path that only a repository of ours has; others are not written over.
        message: First line of the commit.
        private: Whether a new repository is private.
    """

    files: Mapping[str, Path]
    card: str
    mark: str
    message: str
    private: bool = False


def upload_model(repo: str, upload: HubUpload) -> HubAddress:
    """Write a commit to a model's repository, which is made where there is none.

    What a commit before it held and this one does not is taken away; the Hub keeps the history.

    Args:
        repo: Repository, ``org/name``.
        upload: Files of the commit.

    Returns:
        The address, pinned by the commit.

    Raises:
        ConfigError: Something else stands in the repository, or it is public and was to be private.
        StorageError: The Hub refuses, cannot be reached, or the commit met another one.
    """
    place = HubAddress(repo)
    with hub_errors(place):
        api = hub_client()
        present = _look(api, place) or _create(api, place, private=upload.private)
        names = {item.rfilename for item in present.siblings or ()}
        _check_repository(place, present, names, upload)
        commit = api.create_commit(
            repo,
            operations=_operations(names, upload),
            commit_message=upload.message,
            parent_commit=present.sha,
        )
        return place.at(commit.oid)


def _look(api: HfApi, place: HubAddress) -> Any:
    """What stands there; None where nothing does.

    Raises:
        StorageError: The Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.repo_info(place.repo, timeout=TIMEOUT_S)
    except RepositoryNotFoundError:
        return None
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise StorageError(
            f"{place} cannot be written: the Hub cannot be reached",
            got=type(error).__name__,
            fix="Unset HF_HUB_OFFLINE, or see whether HF_ENDPOINT is right.",
        ) from error


def _create(api: HfApi, place: HubAddress, *, private: bool) -> Any:
    api.create_repo(place.repo, private=private)
    return api.repo_info(place.repo, timeout=TIMEOUT_S)


def _check_repository(place: HubAddress, present: Any, names: set[str], upload: HubUpload) -> None:
    if upload.private and not present.private:
        raise ConfigError(
            f"{place.repo} is public, and --private was said",
            fix="Make it private on the Hub first, or name another repository.",
        )
    others = sorted(names - _ITS_OWN - {"README.md"})
    if others and upload.mark not in names:
        raise ConfigError(
            f"{place.repo} holds something else, which is not written over",
            got=", ".join(others[:5]),
            expected=f"a new repository, or one with {upload.mark}",
            fix="Name another repository.",
        )


def _operations(names: set[str], upload: HubUpload) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    added: dict[str, Path | bytes] = {**upload.files, "README.md": upload.card.encode()}
    return [
        *(CommitOperationDelete(path) for path in sorted(names - set(added) - _ITS_OWN)),
        *(CommitOperationAdd(path, source) for path, source in sorted(added.items())),
    ]
