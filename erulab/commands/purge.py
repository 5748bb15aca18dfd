"""`python -m erulab purge RUN...`: removes forget texts, caches and models of runs; lists them first.

Figures, settings and reports stay; reports are written anew without texts. purge.json in each run folder says what was
removed, with its SHA-256.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erulab.checksums import ENTRY, hash_file, hash_files
from erulab.commands.arguments import ended_with_line, new_parser
from erulab.commands.products import TABLES, Product, cache_of, is_own_cache, products_by_use, runs_beside
from erulab.commands.state import holder_of, options_named
from erulab.errors import DataError, EnvironmentFault, IntegrityFault
from erulab.options import ForgetText
from erulab.redaction import redacted_text
from erulab.reporting import write_report
from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult, load_figures, run_folders
from erulab.reporting.numbers import size
from erulab.rundir import RunDir

PURGED = "purge.json"
SHOWN_USERS = 2  # other runs that a line names
MANY = ("sweep.json", "search.json")  # in a folder that stands for the runs that they name


@dataclass(frozen=True)
class Item:
    """Something to remove, or to keep.

    what: texts, model, cache or tables.
    users: other runs that use it.
    elsewhere: whether it is in a cache outside of the output folder, which runs that are not known may use.
    """

    what: str
    path: Path
    users: tuple[Path, ...] = ()
    elsewhere: bool = False

    @property
    def shared(self) -> bool:
        """Whether it is kept unless --shared is typed."""
        return bool(self.users) or self.elsewhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Lists, and with --yes removes; returns the exit code: 3 where a folder is no run, 4 where a run is in use."""
    return ended_with_line(lambda: _purge(arguments))


def _purge(arguments: Sequence[str] | None) -> int:
    parser = new_parser("purge", "Removes forget texts, caches and models of runs, after a list of them.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or sweep folders for their runs"
    )
    parser.add_argument("--yes", action="store_true", help="remove what the list shows; without it nothing is removed")
    parser.add_argument("--shared", action="store_true", help="also what other runs use; they make it again")
    options = parser.parse_args(arguments)
    runs = [load_figures(folder) for folder in _named_runs(options.runs)]
    items = _items_by_run(runs)
    seen: set[Path] = set()
    for run, own in items:
        print(visible(f"{run.path}"))
        for line in _lines(own, shared=options.shared, seen=seen):
            print(visible(redacted_text(line)))
    going = {item.path for _, own in items for item in own if options.shared or not item.shared}
    total = size(sum(_inodes(going).values()))
    if not options.yes:
        print(f"nothing was removed; type the same with --yes to remove {total}")
        return 0
    for run, own in items:
        _remove(run, own, shared=options.shared)
    print(f"{total} removed; {PURGED} in each run folder says what")
    return 0


def _named_runs(folders: Sequence[Path]) -> list[Path]:
    """Returns the run folders that are named, by themselves or by their sweep, without links.

    Raises:
        DataError: a folder is neither a run, a sweep nor a search: a folder of many runs is not removed by accident.
        EnvironmentFault: one of them is in use.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not (RunDir(folder).run_yaml.is_file() or any((folder / name).is_file() for name in MANY)):
            raise DataError(
                f"{folder} is no run or sweep folder, nor that of a finished search; type erulab ls for those "
                "that there are"
            )
        found |= dict.fromkeys(path.resolve() for path in run_folders(folder))
    _refuse_if_in_use(list(found))
    return list(found)


def _refuse_if_in_use(folders: Sequence[Path]) -> None:
    for folder in folders:
        holder = holder_of(RunDir(folder))
        if holder is not None:
            raise EnvironmentFault(
                f"{folder} is in use by {holder.words}; wait for it or stop it, then type this again"
            )


def _items_by_run(runs: Sequence[RunResult]) -> list[tuple[RunResult, list[Item]]]:
    """Lists what each run left behind, with the other runs that use it.

    Raises:
        EnvironmentFault: a run is working with the same cache: what it uses is not written in its folder yet.
    """
    leaving = {run.path for run in runs}
    others: dict[Path, list[RunResult]] = {}  # cache -> all runs that use it
    products: dict[Path, list[Product]] = {}
    found = []
    for run in runs:
        items, cache = _items_in_folder(run), cache_of(run)
        if cache is not None:
            if cache not in others:
                others[cache] = [one for one in [*runs_beside(run), *runs] if cache_of(one) == cache]
                _refuse_if_in_use([one.path for one in others[cache]])
                products[cache] = products_by_use(cache, others[cache])
            own = [product for product in products[cache] if run.path in product.users]
            elsewhere = not is_own_cache(run)
            items += [Item("cache", one.folder, tuple(sorted(one.users - leaving)), elsewhere) for one in own]
            users = tuple(sorted({one.path for one in others[cache]} - leaving))
            items += [Item("tables", cache / name, users, elsewhere) for name in TABLES if (cache / name).is_dir()]
        found.append((run, items))
    return found


def _items_in_folder(run: RunResult) -> list[Item]:
    """Lists the texts and models in a run folder."""
    rundir = RunDir(run.path)
    hashed = options_named(run, "artifacts").get("forget_text") == ForgetText.hash_only.value
    texts = [] if hashed else [rundir.samples_json, rundir.alternatives_json, rundir.judged_jsonl]
    if options_named(run, "tracker").get("samples"):
        texts.append(rundir.path / "wandb")
    models = [rundir.model, rundir.adapter]
    models += [one.with_name(f"{one.name}.changed") for one in models]
    items = [Item("texts", path) for path in texts if _is_there(path)]
    return [*items, *(Item("model", path) for path in models if _is_there(path))]


def _lines(items: Sequence[Item], *, shared: bool, seen: set[Path]) -> list[str]:
    """Returns a line for each item; `seen`: what an earlier run of the list removes already."""
    lines = []
    for item in items:
        gone = item.path in seen
        keeps = item.shared and not shared
        if not keeps:
            seen.add(item.path)
        names = ", ".join(one.name for one in item.users[:SHOWN_USERS])
        more = f" and {len(item.users) - SHOWN_USERS} more" if len(item.users) > SHOWN_USERS else ""
        used = f"  used by {names}{more}" if item.users else "  named above" if gone else ""
        if item.elsewhere and not item.users:
            used = "  in a cache that other output folders may use"
        bytes_there = size(sum(_inodes([item.path]).values()))
        where = f"{item.path.parent.name}/{item.path.name}" if item.what == "cache" else item.path.name
        lines.append(f"  {'keep' if keeps else 'remove':<7} {item.what:<7} {where:<34} {bytes_there:>9}{used}")
    if any(item.what == "texts" for item in items):
        lines.append("  rewrite report  report.md, report.html: without texts")
    return lines


def _remove(run: RunResult, items: Sequence[Item], *, shared: bool) -> None:
    """Removes a run's items and writes what it removed; the list of earlier purges stays in front of it."""
    rundir = RunDir(run.path)
    going = [item for item in items if (shared or not item.shared) and _is_there(item.path)]
    kept = [item for item in items if item.shared and not shared]
    entry: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "done": False,
        "removed": [_described(item) for item in going],
        "kept": [
            {"path": str(item.path), "what": item.what, "used_by": [str(one) for one in item.users]} for item in kept
        ],
    }
    file = rundir.path / PURGED
    with rundir.locked():
        before = rundir.read_json(file) if file.is_file() else []
        rundir.write_json(file, [*before, entry])
        for item in going:
            _remove_path(item.path)
        if any(item.what == "texts" for item in going) and run.has_results and rundir.report_md.is_file():
            try:
                write_report(rundir)
            except IntegrityFault as fault:  # of other files of the run: the report is written without them
                print(redacted_text(str(fault)), file=sys.stderr)
        rundir.write_json(file, [*before, entry | {"done": True}])


def _described(item: Item) -> dict[str, Any]:
    """Returns an item as purge.json holds it: the SHA-256 of each of its files, as its entry.json knows them."""
    described = {"path": str(item.path), "what": item.what, "bytes": sum(_inodes([item.path]).values())}
    if item.path.is_symlink():
        return described | {"link_to": str(item.path.readlink())}
    if item.path.is_file():
        return described | {"sha256": {item.path.name: hash_file(item.path)}}
    try:
        return described | {"sha256": dict(json.loads((item.path / ENTRY).read_text(encoding="utf-8"))["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return described | {"sha256": hash_files(item.path)}


def _remove_path(path: Path) -> None:
    """Removes a file or folder; of a link the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)  # removes links in it and follows none


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _inodes(paths: Sequence[Path] | set[Path]) -> dict[tuple[int, int], int]:
    """Returns the bytes of each file below some paths; files that are linked count once, links nothing."""
    found = {}
    for path in paths:
        files = [path] if not path.is_dir() else list(path.rglob("*"))
        for file in [] if path.is_symlink() else files:
            if file.is_file() and not file.is_symlink():
                status = file.stat()
                found[status.st_dev, status.st_ino] = status.st_size
    return found
