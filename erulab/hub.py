"""The Hugging Face hub: a snapshot of a repository as a local folder, or one line that says why there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from erulab.errors import EnvironmentFault
from erulab.faults import disk_fault

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Tells whether `source` has the form owner/name (or name) and is no path into a local folder."""
    return HUB_ID.fullmatch(source) is not None and not is_missing_folder(source)


def is_missing_folder(source: str) -> bool:
    """Tells whether `source` = a/b is a misspelt path: folder a exists without b, and the hub's a/b was never fetched.

    A hub id whose owner happens to be the name of a local folder works once it was fetched (hf download).
    """
    path = Path(source)
    if HUB_ID.fullmatch(source) is None or "/" not in source or not path.parent.is_dir() or path.is_dir():
        return False
    from huggingface_hub import constants  # slow to load, and rarely needed

    fetched = [Path(constants.HF_HUB_CACHE) / f"{kind}--{source.replace('/', '--')}" for kind in ("models", "datasets")]
    return not any(folder.is_dir() for folder in fetched)


def find_fetched(hub_id: str, file: str) -> Path | None:
    """Finds a file of a model repository in the local cache; None if it was never fetched. Uses no network."""
    import huggingface_hub  # slow to load, and most runs need no hub

    found = huggingface_hub.try_to_load_from_cache(hub_id, file)
    return Path(found) if isinstance(found, str) else None


def fetch_snapshot(hub_id: str, kind: str, parts: Iterable[str], skip: Iterable[str] = ()) -> Path:
    """Fetches files of a repository, offline from the local cache; returns their folder, which the commit names.

    Args:
        hub_id: the repository, owner/name.
        kind: "model" or "dataset".
        parts: patterns of the files to fetch.
        skip: patterns of files among them to leave out.
    Raises:
        EnvironmentFault: the hub is unreachable, the repository gated or missing; says whether a token is set, and
            never its value.
    """
    import huggingface_hub  # slow to load, and most runs need no hub
    from huggingface_hub import errors

    token = "a token is set" if huggingface_hub.get_token() else "no token is set (HF_TOKEN)"
    instead = f"or give a local folder (on a machine with access: hf download {hub_id} --repo-type {kind})"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, repo_type=kind, allow_patterns=list(parts), ignore_patterns=list(skip)
            )
        )
    except errors.GatedRepoError as error:
        raise EnvironmentFault(
            f"hub {kind} {hub_id} is gated and {token}; accept its terms on its page and set a token, {instead}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise EnvironmentFault(
            f"the hub has no {kind} {hub_id}, or it is private, and {token}; check the name, {instead}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        fault = disk_fault(error, [Path(huggingface_hub.constants.HF_HUB_CACHE)])
        if fault is not None:
            raise EnvironmentFault(f"{fault}; HF_HOME=FOLDER moves what is fetched from the hub") from error
        raise EnvironmentFault(
            f"{hub_id} is no local folder, and the hub cannot be reached for a {kind} of that name; {token}; "
            f"check the network, {instead}"
        ) from error
