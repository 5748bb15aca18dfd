"""Products of stages, kept under a hash of exactly what they depend on, so that nothing is made twice or is stale."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.costs.ledger import Ledger
from erulab.ranks import Ranks

ENTRY = "entry.json"
FORMAT = 2  # of entry.json: what is written otherwise has other keys


def key_of(depends_on: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps({"entry": FORMAT, **depends_on}, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Product:
    """A finished entry: its key, its folder, what making it cost, and whether that was now."""

    key: str
    folder: Path
    costs: Costs
    from_cache: bool


class Cache:
    """Folders `<root>/<kind>/<key>`. An entry exists once its entry.json does; that is written last."""

    def __init__(self, root: Path, ranks: Ranks, made_by: dict[str, Any], ledger: Ledger, device: str) -> None:
        """
        Args:
            made_by: what does not change a product but is worth recording: engine, processes, hardware.
            ledger: where this process adds up what it runs; device: whose memory it uses.
        """
        self._root, self._ranks, self._made_by = root, ranks, made_by
        self._ledger, self._device = ledger, device

    def folder(self, kind: str) -> Path:
        return self._root / kind

    def alone(self) -> Cache:
        """The same entries, for what this rank makes by itself."""
        return Cache(self._root, Ranks(), self._made_by, self._ledger, self._device)

    def find(self, kind: str, depends_on: dict[str, Any]) -> Product | None:
        """The finished product, or None. Rank 0 looks for all ranks."""
        key = key_of(depends_on)
        folder = self._root / kind / key
        costs = self._ranks.gather_objects(_costs(folder))[0]
        return None if costs is None else Product(key, folder, costs, from_cache=True)

    def produce(
        self, kind: str, depends_on: dict[str, Any], make: Callable[[Path], None], *, rerun: bool = False
    ) -> Product:
        """The product of `depends_on`, made by `make(folder)` on all ranks unless it is there.

        Two runs that need the same product at once make it once: the second waits at a lock. What `make` leaves in
        its working folder when it fails (checkpoints) is found there by the next try; an empty one goes.
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
            account.start(self._ledger, self._device)
            try:
                make(working)
            except BaseException:
                if self._ranks.first:
                    with contextlib.suppress(OSError):
                        working.rmdir()  # only if nothing was left in it
                raise
            mine = account.stop(self._ledger, self._device)
            costs = account.sum_over_processes(self._ranks.gather_objects(mine))
            if self._ranks.first:
                entry = {"key": key, "depends_on": depends_on, "costs": costs.plain(), "made_by": self._made_by}
                (working / ENTRY).write_text(json.dumps(entry, indent=1, default=str))
                shutil.rmtree(final, ignore_errors=True)
                working.rename(final)
            self._ranks.barrier()
        return Product(key, final, costs, from_cache=False)

    @contextmanager
    def _locked(self, final: Path) -> Iterator[None]:
        if not self._ranks.first:
            yield
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        # The operating system drops the lock of a process that died.
        with FileLock(final.with_name(f"{final.name}.lock")):
            yield


def _costs(folder: Path) -> Costs | None:
    file = folder / ENTRY
    return Costs.read(json.loads(file.read_text())["costs"]) if file.is_file() else None
