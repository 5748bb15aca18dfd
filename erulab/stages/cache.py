"""The cache: products of stages under a hash of exactly what they depend on, so that none is made twice or stale."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from erulab.checksums import ENTRY, find_fault, hash_files, hash_json
from erulab.costs import account
from erulab.costs.account import Costs
from erulab.costs.ledger import Ledger
from erulab.ranks import Ranks
from erulab.rundir import write_whole
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

FORMAT = 2  # of entry.json; part of every key
# Folders of an unfinished product: what a training needs to go on. They are removed once the product's entry is
# written, so that a process that dies while it removes them leaves a finished product.
CHECKPOINTS, BEST = "checkpoints", "best"
UNFINISHED = (CHECKPOINTS, BEST)


def key_of(depends_on: dict[str, Any]) -> str:
    """Returns 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps({"entry": FORMAT, **depends_on}, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Product:
    """A finished entry of the cache."""

    key: str
    folder: Path
    costs: Costs  # of making it
    from_cache: bool  # False if it was made just now

    @property
    def model(self) -> ModelRef:
        """The model that it holds."""
        return ModelRef(self.key, str(self.folder / "model"))


class Cache:
    """Folders `<root>/<kind>/<key>`. A product exists once its entry.json does, which is written last.

    The entry holds the SHA-256 of every file. A product whose files are not those is reported and made again.
    """

    def __init__(self, root: Path, ranks: Ranks, made_by: dict[str, Any], ledger: Ledger, device: str) -> None:
        """
        Args:
            made_by: recorded with each product, though it does not change it: engine, processes, hardware.
            ledger: in which this process adds up its costs.
            device: whose peak memory is measured.
        """
        self._root, self._ranks, self._made_by = root, ranks, made_by
        self._ledger, self._device = ledger, device
        # For each product that is being made: the costs so far of what it needed, in order.
        self._open: list[list[Costs]] = []

    def folder(self, kind: str) -> Path:
        """Returns the folder of all entries of one kind."""
        return self._root / kind

    def alone(self) -> Cache:
        """Returns a cache of the same entries, for products that this rank makes without the other ranks."""
        return Cache(self._root, Ranks(), self._made_by, self._ledger, self._device)

    def find(self, kind: str, depends_on: dict[str, Any]) -> Product | None:
        """Finds a finished, undamaged product; None if there is none. Rank 0 looks for all ranks.

        Large files (weights) are compared with their checksums while they are loaded.
        """
        key = key_of(depends_on)
        folder = self._root / kind / key
        costs = self._ranks.gather_objects(_read_entry(folder) if self._ranks.first else None)[0]
        return None if costs is None else Product(key, folder, costs, from_cache=True)

    def produce(
        self, kind: str, depends_on: dict[str, Any], make: Callable[[Path], None], *, rerun: bool = False
    ) -> Product:
        """Returns the product of `depends_on`, after making it on all ranks if it is missing.

        Two runs that need the same product at once make it once: the second one waits at a lock. If `make` fails, its
        working folder stays for the next try to find its checkpoints, unless it is empty. A product that `make` itself
        asks for counts in the costs of this one, also if it was there.

        Args:
            depends_on: all that the product depends on, as plain values.
            make: writes the product into the folder that it is given.
            rerun: makes the product anew even if it is there.
        """
        key = key_of(depends_on)
        final = self._root / kind / key
        working = final.with_name(f"{key}.partial")
        self._pause()
        with self._locked(final):
            found = None if rerun else self.find(kind, depends_on)
            if found is not None:
                return self._resume(found)
            # A process that died between writing the entry and giving the folder its name leaves a finished product.
            costs = self._ranks.gather_objects(_read_entry(working) if self._ranks.first else None)[0]
            if costs is None:
                began = _now()
                costs = self._make(working, make)
                self._write_entry(working, key, depends_on, costs, began)
            if self._ranks.first:
                for name in UNFINISHED:
                    shutil.rmtree(working / name, ignore_errors=True)
                shutil.rmtree(final, ignore_errors=True)
                working.rename(final)
            self._ranks.barrier()
        return self._resume(Product(key, final, costs, from_cache=False))

    def _make(self, working: Path, make: Callable[[Path], None]) -> Costs:
        """Makes a product on all ranks; returns its costs."""
        if self._ranks.first:
            working.mkdir(parents=True, exist_ok=True)
            (working / ENTRY).unlink(missing_ok=True)
            _remove_hidden(working)
        self._ranks.barrier()
        self._open.append([])
        account.start(self._ledger, self._device)
        try:
            make(working)
            self._pause()
        except BaseException:
            if self._ranks.first:
                with contextlib.suppress(OSError):
                    working.rmdir()  # only if nothing was left in it
            raise
        finally:
            needed = self._open.pop()
        return account.sum_over_products(needed)

    def _write_entry(self, working: Path, key: str, depends_on: dict[str, Any], costs: Costs, began: str) -> None:
        if not self._ranks.first:
            return
        made_by = {**self._made_by, "began": began, "ended": _now()}
        files = hash_files(working, without=UNFINISHED)
        entry = {"key": key, "depends_on": depends_on, "costs": costs.plain(), "made_by": made_by, "files": files}
        plain = json.loads(json.dumps(entry, default=str))
        write_whole(working / ENTRY, json.dumps(plain | {"sha256": hash_json(plain)}, indent=1).encode())

    def _pause(self) -> None:
        """Books the costs since `account.start` to the product that is being made, if there is one."""
        if self._open:
            mine = account.stop(self._ledger, self._device)
            self._open[-1].append(account.sum_over_processes(self._ranks.gather_objects(mine)))

    def _resume(self, needed: Product) -> Product:
        """Books the costs of a product to the one that needed it, if there is one, and counts on; returns it."""
        if self._open:
            self._open[-1].append(needed.costs)
            account.start(self._ledger, self._device)
        return needed

    @contextmanager
    def _locked(self, final: Path) -> Iterator[None]:
        if not self._ranks.first:
            yield
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        # The operating system drops the lock of a process that died.
        with FileLock(final.with_name(f"{final.name}.lock")):
            yield


def _remove_hidden(working: Path) -> None:
    """Removes what a process that died was writing: temporary files and folders, whose names begin with a dot."""
    for left in working.glob(".*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _read_entry(folder: Path) -> Costs | None:
    """Returns the costs of a finished product; None, with a line in the log, if a file of it is damaged."""
    file = folder / ENTRY
    if not file.is_file():
        return None
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        if entry.pop("sha256") != hash_json(entry):
            raise ValueError
        costs, files = Costs.read(entry["costs"]), dict(entry["files"])
        fault = find_fault(folder, files, without=(ENTRY, *UNFINISHED), small_only=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        fault = f"{ENTRY} is damaged, or of an older version"
    if fault is None:
        return costs
    log.warning("%s is not used, but made again where it is needed: %s", folder, fault)
    return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
