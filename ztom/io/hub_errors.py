"""What went wrong with the Hub, in a sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from ztom.errors import NothingThereError, StorageError
from ztom.io.hub_address import HubAddress

OFFLINE_HINT = (
    "Where there is a network, fetch it with `hf download`, or unset HF_HUB_OFFLINE; HF_ENDPOINT "
    "names another Hub."
)
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may do this"
_LOOK_TIMEOUT_S = 5.0
_SHOWN = 3
_LONGEST = 200


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub could not be asked: offline, no connection, no answer, or its own failure."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return True
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, ConnectionError | TimeoutError) or _is_transport(error)


def hub_error(place: HubAddress, error: Exception) -> StorageError:
    """The error to raise for one of the Hub's client."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return StorageError(
            f"{place} is gated",
            got=f"status {error.response.status_code}",
            fix=f"Ask for access on {_page(place)}, then: {_LOG_IN}.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return _no_repository(place, error)
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(place)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        fix = "Somebody else wrote to it just now: look, and try again."
        if status != 412:
            fix = f"{_LOG_IN}." if status in (401, 403) else "Try again later."
        return StorageError(f"the Hub refused {place}", got=f"status {status}", fix=fix)
    if is_unreachable(error) or isinstance(error, errors.EntryNotFoundError):
        return StorageError(
            f"{place} could not be fetched whole",
            got=f"{type(error).__name__}: {_first_line(error)}",
            fix=f"What is here stays; the same command goes on from there. {OFFLINE_HINT}",
        )
    if isinstance(error, OSError):
        return StorageError(
            f"{place} could not be written to the Hub's cache",
            got=error.strerror or _first_line(error),
            fix="Free some space, or name another disk with HF_HUB_CACHE.",
        )
    return StorageError(
        f"{place} could not be read", got=f"{type(error).__name__}: {_first_line(error)}"
    )


def no_entry(place: HubAddress, what: str, paths: Collection[str]) -> StorageError:
    """The error for a file or a folder that a repository has not."""
    folders = {"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)}
    names = paths if what == "file" else folders
    close = difflib.get_close_matches(place.path, sorted(names), n=_SHOWN, cutoff=0.4)
    return NothingThereError(
        f"{place.repo} has no {what} {place.path or 'of its own'}",
        got=f"{len(paths)} files" if paths else "an empty repository",
        fix=f"It has {_listed(close or sorted(names)[:_SHOWN])}." if names else None,
    )


def _no_repository(place: HubAddress, error: Any) -> StorageError:
    near = _near_repositories(place)
    hint = f"Did you mean {_listed(near)}? " if near else ""
    return NothingThereError(
        f"there is no {_noun(place)} {place.repo} on the Hub that you may read",
        got=f"status {error.response.status_code}",
        fix=f"{hint}If it is private: {_LOG_IN}.",
    )


def _no_revision(place: HubAddress) -> StorageError:
    names = sorted(_revisions(place))
    close = difflib.get_close_matches(place.revision or "main", names, n=_SHOWN, cutoff=0.4)
    known = close or names[:_SHOWN]
    return NothingThereError(
        f"{place.repo} has no revision {place.revision or 'main'}",
        expected="a branch, a tag or a commit of 40 digits",
        fix=f"It has {_listed(known)}." if known else None,
    )


def _near_repositories(place: HubAddress) -> list[str]:
    """Names that somebody may have meant; none where the Hub does not say in time."""
    owner, _, name = place.repo.partition("/")
    known: set[str] = set()
    for query in ({"author": owner}, {"search": name}):
        answer = _look(f"/api/{place.kind}s", {**query, "limit": "100"})
        known |= {str(item.get("id")) for item in answer if isinstance(item, dict)}
    return difflib.get_close_matches(place.repo, sorted(known), n=_SHOWN, cutoff=0.5)


def _revisions(place: HubAddress) -> set[str]:
    answer = _look(f"/api/{place.kind}s/{place.repo}/refs", {})
    if not isinstance(answer, dict):
        return set()
    refs = [ref for kind in ("branches", "tags", "converts") for ref in answer.get(kind) or ()]
    return {str(ref.get("name")) for ref in refs if isinstance(ref, dict)}


def _look(path: str, query: dict[str, str]) -> Any:
    """An answer of the Hub's API for a hint; an empty one where it gives none."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    try:
        answer = get_session().get(
            f"{constants.ENDPOINT}{path}",
            params=query,
            headers=build_hf_headers(library_name="ztom"),
            timeout=_LOOK_TIMEOUT_S,
        )
        return answer.json() if answer.status_code == 200 else []
    except Exception:  # a hint is worth no second error
        return []


def _page(place: HubAddress) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if place.kind == 'dataset' else ''}{place.repo}"


def _noun(place: HubAddress) -> str:
    return "data set" if place.kind == "dataset" else "model"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:_LONGEST]


def _is_transport(error: Exception) -> bool:
    """Whether it comes from the library that carries requests, which has changed its name once."""
    modules = (kind.__module__.partition(".")[0] for kind in type(error).__mro__)
    return any(module.startswith("httpx") for module in modules)
