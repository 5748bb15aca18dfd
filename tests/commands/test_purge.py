"""`erulab purge` on a made-up cache: what goes, what stays for whom, and that nothing outside is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erulab.commands import purge
from erulab.rundir import RunDir
from tests.reporting.conftest import MakeRun

TARGET, MINE, THEIRS, SCORES, INNER = ("a" * 16, "b" * 16, "c" * 16, "d" * 16, "e" * 16)
STOPPED = "f" * 16


def product(cache: Path, kind: str, key: str, **depends_on: Any) -> Path:
    folder = cache / kind / key
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(key.encode() * 10)
    digest = hashlib.sha256(key.encode() * 10).hexdigest()
    (folder / "entry.json").write_text(json.dumps({"depends_on": depends_on, "files": {"weights": digest}}))
    return folder


@pytest.fixture
def outputs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two runs that share a target; what the first one unlearned, scored, and made on the way; a stopped training."""
    output = tmp_path / "outputs"
    cache, data = output / ".cache", output / "fictitious"
    data.mkdir(parents=True)
    for name, own in (("mine", f"{MINE}+{SCORES}"), ("theirs", THEIRS)):
        stages = {
            stage: {"key": key, "seconds": 1.0, "from_cache": False, "done": True}
            for stage, key in (("target", TARGET), ("unlearn", own))
        }
        stages["attack"] = {"key": "../../../x", "seconds": 1.0, "from_cache": False, "done": True}
        config = {"output": str(output), "cache": str(cache)}
        make_run(name, config=config, stages=stages).rename(data / name)
    for name in ("mine", "theirs"):
        (data / name / "model").mkdir()
        (data / name / "model" / "weights").write_bytes(b"w")
    product(cache, "learned", TARGET, stage="learn")
    product(cache, "unlearned", MINE, target=TARGET)
    product(cache, "unlearned", THEIRS, target=TARGET)
    product(cache, "evaluated", SCORES, model=MINE)
    product(cache, "attacked", INNER, models={"unlearned": [MINE]})  # in no stages.json
    manifest = cache / "unlearned" / f"{STOPPED}.partial" / "checkpoints" / "step-00000003" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"training": {"target": MINE}}))
    (cache / "rows").mkdir()
    (cache / "rows" / "texts.arrow").write_text("forget me")
    return output


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def left(outputs: Path) -> set[str]:
    cache = outputs / ".cache"
    return {str(one.relative_to(cache)) for kind in cache.iterdir() for one in kind.iterdir()}


def test_a_list_removes_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(outputs)
    assert purge.main([str(outputs / "fictitious" / "mine")]) == 0
    assert tree(outputs) == before
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    told = {line[2]: (line[0], line[1]) for line in lines if line[0] in ("remove", "keep")}
    assert told["samples.json"] == ("remove", "texts") and told["model"] == ("remove", "model")
    assert told[f"learned/{TARGET}"] == ("keep", "cache") and told["rows"] == ("keep", "tables")
    gone = (f"unlearned/{MINE}", f"evaluated/{SCORES}", f"attacked/{INNER}", f"unlearned/{STOPPED}.partial")
    assert {told[name] for name in gone} == {("remove", "cache")}
    assert f"unlearned/{THEIRS}" not in told
    assert any(line[-3:] == ["used", "by", "theirs"] for line in lines)


def test_what_is_shared_stays(outputs: Path) -> None:
    mine, theirs = outputs / "fictitious" / "mine", outputs / "fictitious" / "theirs"
    samples = hashlib.sha256((mine / "samples.json").read_bytes()).hexdigest()
    before = tree(theirs)
    assert purge.main([str(mine), "--yes"]) == 0
    assert tree(theirs) == before
    assert left(outputs) == {f"learned/{TARGET}", f"unlearned/{THEIRS}", "rows/texts.arrow"}
    assert not (mine / "model").exists() and not (mine / "samples.json").exists()
    assert (mine / "scores.json").is_file() and (mine / "run.yaml").is_file()
    (entry,) = json.loads((mine / "purge.json").read_text())
    assert entry["done"] is True
    digests = {Path(one["path"]).name: one["sha256"] for one in entry["removed"]}
    assert digests["samples.json"] == {"samples.json": samples}
    assert digests["model"] == {"weights": hashlib.sha256(b"w").hexdigest()}
    assert digests[MINE] == {"weights": hashlib.sha256(MINE.encode() * 10).hexdigest()}
    assert {Path(one["path"]).name for one in entry["kept"]} == {TARGET, "rows"}
    # A second time there is nothing of its own left, and the first entry stays.
    assert purge.main([str(mine), "--yes"]) == 0
    first, second = json.loads((mine / "purge.json").read_text())
    assert first == entry and second["removed"] == []


@pytest.mark.parametrize("how", ["--shared", "both"])
def test_shared_products_go_when_asked_or_when_no_run_is_left(how: str, outputs: Path) -> None:
    runs = [str(outputs / "fictitious" / name) for name in ("mine", "theirs")]
    assert purge.main([*(runs if how == "both" else [runs[0], "--shared"]), "--yes"]) == 0
    assert left(outputs) == (set() if how == "both" else {f"unlearned/{THEIRS}"})


def test_a_cache_elsewhere_may_be_used_by_others(outputs: Path, tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        file = outputs / "fictitious" / name / "run.yaml"
        file.write_text(file.read_text().replace(f"cache: {outputs}/.cache", f"cache: {tmp_path}/cache"))
    (outputs / ".cache").rename(tmp_path / "cache")
    before = tree(tmp_path / "cache")
    runs = [str(outputs / "fictitious" / name) for name in ("mine", "theirs")]
    assert purge.main([*runs, "--yes"]) == 0
    assert tree(tmp_path / "cache") == before
    assert purge.main([*runs, "--yes", "--shared"]) == 0
    assert tree(tmp_path / "cache") == {}


def test_a_copy_leaves_the_first_one_alone(outputs: Path, tmp_path: Path) -> None:
    """A copied output folder has a cache of its own, though its run.yaml names that of the first."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (outputs / "fictitious").rename(copy / "fictitious")
    before = tree(outputs)
    assert purge.main([str(copy / "fictitious" / "mine"), "--yes"]) == 0
    assert tree(outputs) == before


def test_links_are_removed_and_never_followed(outputs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("model", "inner", MINE):
        (outside / name).mkdir(parents=True)
        (outside / name / "kept").write_text("kept")
    mine, cache = outputs / "fictitious" / "mine", outputs / ".cache"
    (mine / "model" / "weights").unlink()
    (mine / "model").rmdir()
    (mine / "model").symlink_to(outside / "model")
    (cache / "evaluated" / SCORES / "link").symlink_to(outside / "inner")
    (cache / "patched").symlink_to(outside)  # a kind of products that is a link: not looked into
    before = tree(outside)
    assert purge.main([str(mine), "--yes"]) == 0
    assert tree(outside) == before
    assert not (mine / "model").is_symlink() and (cache / "patched").is_symlink()
    assert not (cache / "evaluated" / SCORES).exists()


@pytest.mark.parametrize("name", ["mine", "theirs"])
def test_a_run_in_use_keeps_its_cache(name: str, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(outputs)
    with RunDir(outputs / "fictitious" / name).locked():
        assert purge.main([str(outputs / "fictitious" / "mine"), "--yes", "--shared"]) == 4
    assert f"{name} is in use by process" in capsys.readouterr().err
    assert tree(outputs) == before


def test_texts_that_are_hashes_stay(outputs: Path) -> None:
    mine = outputs / "fictitious" / "mine"
    (mine / "run.yaml").write_text((mine / "run.yaml").read_text() + "artifacts: {forget_text: hash_only}\n")
    assert purge.main([str(mine), "--yes"]) == 0
    assert (mine / "samples.json").is_file()


@pytest.mark.parametrize("arguments", [lambda o: [str(o)], lambda o: [str(o / ".cache")]])
def test_a_folder_of_many_runs_is_refused(
    arguments: Callable[[Path], list[str]], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert purge.main([*arguments(outputs), "--yes"]) == 3
    assert "is no run or sweep folder" in capsys.readouterr().err
