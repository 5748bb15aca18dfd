"""The products of a cache by the runs that use them, read from stages.json of each run and entry.json of each product.

A run's stages.json names what its stages made. What was made on the way to it (a fine-tuned copy, references) is named
nowhere: it belongs to every run with a product that its entry.json, or that of its checkpoints, depends on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erulab.checksums import ENTRY
from erulab.errors import DataError
from erulab.reporting.load import RunResult, load_figures, run_folders

KEY = re.compile(r"[0-9a-f]{16}")
UNFINISHED = ".partial"  # behind the key of a product that is being made, or whose making was stopped
# Tables that are kept by content alone: which run made one is not known.
TABLES = ("rows", "tokens", "references")


@dataclass
class Product:
    """A folder of the cache.

    users: folders of the runs that use it.
    """

    kind: str
    key: str
    folder: Path
    depends_on: frozenset[str]  # keys of other products
    users: set[Path] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.folder.name}"


def cache_of(run: RunResult) -> Path | None:
    """Returns the cache folder of a run, without links; None where it is gone.

    A cache in the output folder is that of the output folder the run lies in: a copy has a cache of its own.
    """
    if not run.config.get("cache"):
        return None
    below, output = _below_output(run), output_of(run)
    named = Path(str(run.config["cache"])) if below is None else None if output is None else output / below
    return named.resolve() if named is not None and named.is_dir() else None


def is_own_cache(run: RunResult) -> bool:
    """Tells whether run and cache lie in one output folder, so that the runs that use it are those beside this one.

    Otherwise the run may be a copy, and the cache that of others.
    """
    output = output_of(run)
    return _below_output(run) is not None and output is not None and output.resolve() in run.path.resolve().parents


def output_of(run: RunResult) -> Path | None:
    """Returns the folder that holds the runs of all data sets, also if it was moved; None where it is gone."""
    named, beside, below = Path(str(run.config.get("output", ""))), run.path.parent.parent, _below_output(run)
    # <output>/<dataset>/<run>, unless the user named the run folder.
    if beside.name == named.name or (below is not None and (beside / below).is_dir()):
        return beside
    return named if named.name and named.is_dir() else None


def _below_output(run: RunResult) -> Path | None:
    """Returns the cache folder's path in the output folder; None if it is elsewhere."""
    named, output = Path(str(run.config.get("cache", ""))), Path(str(run.config.get("output", "")))
    return named.relative_to(output) if named != output and named.is_relative_to(output) else None


def runs_beside(run: RunResult) -> list[RunResult]:
    """Reads all other runs of the same output folder."""
    output = output_of(run)
    if output is None:
        return []
    try:
        folders = [path.resolve() for path in run_folders(output)]
    except DataError:  # the run's folder is elsewhere, and there are no others
        return []
    return [load_figures(folder) for folder in folders if folder != run.path]


def products_by_use(cache: Path, runs: Iterable[RunResult]) -> list[Product]:
    """Returns the products of a cache with the runs that use each.

    Args:
        cache: the cache folder. A link in it is no product.
        runs: all runs that may use it.
    """
    found = list(_products_in(cache))
    for run in runs:
        own = used_keys(run)
        for product in found:
            if product.key in own:
                product.users.add(run.path)
    # Products that no run names, in passes until nothing changes: one may depend on another.
    by_key = {product.key: product for product in found}
    unnamed = [product for product in found if not product.users]
    for _ in unnamed:
        before = sum(len(product.users) for product in unnamed)
        for product in unnamed:
            for key in product.depends_on:
                if key in by_key:
                    product.users |= by_key[key].users
        if sum(len(product.users) for product in unnamed) == before:
            break
    return found


def used_keys(run: RunResult) -> set[str]:
    """Returns the keys of the products that a run's stages.json names."""
    texts = [str(entry.get("key", "")) for entry in run.stages.values()]
    texts += [str(key) for entry in run.stages.values() for key in (entry.get("models") or {}).values()]
    return {key for text in texts for key in text.split("+") if KEY.fullmatch(key)}


def _products_in(cache: Path) -> Iterator[Product]:
    for kind in sorted(_folders_in(cache)):
        if kind.name in TABLES:
            continue
        for folder in sorted(_folders_in(kind)):
            key = folder.name.removesuffix(UNFINISHED)
            if KEY.fullmatch(key):
                yield Product(kind.name, key, folder, frozenset(_keys_in(folder)) - {key})


def _folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder, without links, which may lead out of it."""
    return [one for one in folder.iterdir() if one.is_dir() and not one.is_symlink()] if folder.is_dir() else []


def _keys_in(folder: Path) -> set[str]:
    """Returns all keys that a product's entry, or the manifests of its checkpoints, depend on."""
    entries = [(folder / ENTRY, "depends_on"), *((m, "training") for m in folder.glob("*/step-*/manifest.json"))]
    found: set[str] = set()
    for file, part in entries:
        try:
            found |= set(_texts_in(json.loads(file.read_text(encoding="utf-8"))[part]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # missing or damaged: it tells nothing
            continue
    return {text for text in found if KEY.fullmatch(text)}


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)
