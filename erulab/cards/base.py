"""The base model and the data set as the hub knows them: ids, never folders of this machine, and the licence."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from erulab import hub
from erulab.models.smollm2 import HUB_ID as SMOLLM2

LICENCE_KEYS = ("license", "license_name", "license_link")  # of a card's front matter
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
# A path from the root or the home folder, up to its last name.
_FOLDERS = re.compile(r"(?<![\w.:/~-])~?(?:/[^/'\",\]}]+)*/(?=[^/\s'\",\]}])")
# Options that say where a run is kept; no figure depends on them.
_PLACES = ("output", "cache", "hydra.run.dir", "hydra.sweep.dir", "tracker")


def hub_id(source: object) -> str | None:
    """Returns a source if it is a hub id with an owner, and None for a folder or a name alone."""
    if not isinstance(source, str) or "/" not in source or Path(source).exists():
        return None
    return source if hub.is_hub_id(source) else None


def base_source(config: dict[str, Any]) -> str | None:
    """Returns the folder or hub id that unlearning began from: a given target, otherwise the base weights.

    Args:
        config: the content of run.yaml.
    Returns:
        None for a model that is made anew (`model=tiny`).
    """
    model = config.get("model") or {}
    if model.get("target") or model.get("path"):
        return str(model.get("target") or model.get("path"))
    return SMOLLM2 if model.get("name") == "smollm2_135m" else None


def licence_of(source: str | None) -> dict[str, str]:
    """Returns what the card of a model says of its licence, by LICENCE_KEYS; empty if no card is on this machine.

    Args:
        source: a folder, or a hub id whose card is looked for in the local cache only.
    """
    folder, hosted = Path(source or ""), hub_id(source)
    if source is not None and folder.is_dir():
        card: Path | None = folder / "README.md"
    else:
        card = None if hosted is None else hub.find_fetched(hosted, "README.md")
    if card is None or not card.is_file():
        return {}
    front = _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace"))
    try:
        found = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: str(found[key]) for key in LICENCE_KEYS if isinstance(found.get(key), str)}


def has_licence_file(source: str | None) -> bool:
    """Tells whether a folder holds a file of its licence."""
    return source is not None and Path(source).is_dir() and any(Path(source).glob("LICEN[CS]E*"))


def without_folders(value: Any) -> Any:
    """Returns the tree of dicts, lists and scalars with every path from the root or the home folder cut to its name.

    The folders above it tell about a machine and its user, and mean nothing elsewhere.
    """
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


def shared_command(command: str) -> str:
    """Returns a command as others can type it: without folders, and without where its run was kept."""
    try:
        words = shlex.split(command)
    except ValueError:
        return without_folders(command)
    return shlex.join(without_folders([word for word in words if not _says_where(word)]))


def _says_where(word: str) -> bool:
    """Tells whether an override says where a run is kept or tracked, and by whom."""
    key = word.partition("=")[0].lstrip("+")
    return key in _PLACES or key.startswith("tracker.")
