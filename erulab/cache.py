"""Products of stages, kept under a hash of exactly what they depend on, so that nothing is made twice or is stale."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from erulab.ranks import Ranks

ENTRY = "entry.json"


def key_of(depends_on: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(depends_on, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Product:
    """A finished entry: its key, its folder, what making it cost, and whether that was now."""

    key: str
    folder: Path
    seconds: float
    from_cache: bool


class Cache:
    """Folders `<root>/<kind>/<key>`. An entry exists once its entry.json does; that is written last."""

    def __init__(self, root: Path, ranks: Ranks, made_by: dict[str, Any]) -> None:
        """`made_by`: what does not change a product but is worth recording: engine, processes, hardware."""
        self._root, self._ranks, self._made_by = root, ranks, made_by

    def folder(self, kind: str) -> Path:
        return self._root / kind

    def find(self, kind: str, depends_on: dict[str, Any]) -> Product | None:
        """The finished product, or None. Rank 0 looks for all ranks."""
        key = key_of(depends_on)
        folder = self._root / kind / key
        seconds = self._ranks.gather_objects(_seconds(folder))[0]
        return None if seconds is None else Product(key, folder, seconds, from_cache=True)

    def produce(
        self, kind: str, depends_on: dict[str, Any], make: Callable[[Path], None], *, rerun: bool = False
    ) -> Product:
        """The product of `depends_on`, made by `make(folder)` on all ranks unless it is there.

        Two runs that need the same product at once make it once: the second waits at a lock. What `make` leaves in
        its working folder when it fails (checkpoints) is found there by the next try.
        """
        key = key_of(depends_on)
        final = self._root / kind / key
        working = final.with_name(f"{key}.partial")
        with self._locked(final):
            found = None if rerun else self.find(kind, depends_on)
            if found is not None:
                return found
            if self._ranks.first:
                working.mkdir(parents=True, exist_ok=True)
            self._ranks.barrier()
            started = time.perf_counter()
            make(working)
            seconds = time.perf_counter() - started
            if self._ranks.first:
                entry = {"key": key, "depends_on": depends_on, "seconds": seconds, "made_by": self._made_by}
                (working / ENTRY).write_text(json.dumps(entry, indent=1, default=str))
                shutil.rmtree(final, ignore_errors=True)
                working.rename(final)
            self._ranks.barrier()
        return Product(key, final, seconds, from_cache=False)

    @contextmanager
    def _locked(self, final: Path) -> Iterator[None]:
        if not self._ranks.first:
            yield
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        # The operating system drops the lock of a process that died.
        with FileLock(final.with_name(f"{final.name}.lock")):
            yield


def _seconds(folder: Path) -> float | None:
    file = folder / ENTRY
    return float(json.loads(file.read_text())["seconds"]) if file.is_file() else None
