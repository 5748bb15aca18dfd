"""The commands on a real run: what a dry run foretells comes true, and after a purge no text is left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.commands import dry_worker, ls, purge
from erulab.config.compose import compose_config, save_config
from erulab.launching import dry_run
from erulab.launching.job import plan_job
from tests.commands import Answer
from tests.pipeline.conftest import FIRST, Finished, run_beside, small

LINE = re.compile(r"^(target|oracle|unlearn|evaluate|attack) +\S+ +(.+)$")


def foretold(overrides: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, bool]:
    """Stage -> whether a dry run says that nothing of it is to be made."""
    job = plan_job(compose_config(overrides))
    folder.mkdir()
    save_config(job.config, folder / "run.yaml")
    assert dry_worker.main([str(folder), str(job.rundir.path), "", ""]) == 0
    found = {}
    for match in filter(None, map(LINE.match, capsys.readouterr().out.splitlines())):
        share = re.match(r"(\d+) of (\d+) in the cache", match[2])
        found[match[1]] = share[1] == share[2] if share else match[2].startswith("in the cache")
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_dry_run_foretells_what_the_run_makes(
    copy_first: Callable[[Path], Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The truth is `from_cache` in stages.json, after the run was made."""
    output = tmp_path / "outputs"
    first = copy_first(output)
    before = tree(output)
    again = [*small(FIRST), f"output={output}"]
    assert foretold(again, tmp_path / "a", capsys) == {**first.from_cache, **dict.fromkeys(first.from_cache, True)}
    changed = ("trainer.lr=2e-3", "stages=[target,oracle,unlearn]")
    told = foretold([*small(changed), f"output={output}"], tmp_path / "b", capsys)
    new = foretold([*small(FIRST), f"output={tmp_path / 'new'}"], tmp_path / "c", capsys)
    assert tree(output) == before and not (tmp_path / "new" / "fictitious").exists()
    assert new == dict.fromkeys(first.from_cache, False)
    made = run_beside(first)(*changed)
    assert made.code == 0 and told == made.from_cache
    assert told["target"] and not told["unlearn"]


def test_a_dry_run_ends_as_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plan_job(compose_config([*small(("stages=[unlearn]",)), f"output={tmp_path / 'o'}"]))
    save_config(job.config, tmp_path / "run.yaml")
    assert dry_worker.main([str(tmp_path), str(job.rundir.path), "", ""]) == 3
    assert "no target has been learned with these settings; add target to stages" in capsys.readouterr().err


def test_the_flag(
    command: Callable[..., Answer], here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every job reaches one process, whose code is that of the command; no run folder and no sweep folder is made."""
    got = here / "got.json"
    monkeypatch.setattr(dry_run, "WORKER", worker(f"open({str(got)!r}, 'w').write(json.dumps(sys.argv)); sys.exit(5)"))
    for arguments, titles in (
        (["method=npo"], [""]),
        (["-m", "method=npo", "seed=0,1"], ["job 1 of 2: seed=0", "job 2 of 2: seed=1"]),
    ):
        assert command(*arguments, "--dry-run", "dataset.forget_authors=4").code == 5
        told = json.loads(got.read_text())[1:]
        assert told[3::4] == titles
        assert all(name.startswith("outputs/fictitious/npo-") for name in told[1::4])
    assert not (here / "outputs").exists()
    assert command("method=npo", "--dry-run", "method.beta=-1").code == 2
    misspelt = command("method=npo", "--dryrun")
    assert misspelt.code == 2 and "type --dry-run" in misspelt.err


def test_after_a_purge_no_text_is_left(
    copy_first: Callable[[Path], Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "outputs"
    first = copy_first(output)
    run = first.rundir
    texts = {str(row[part]).encode() for row in first.read("samples.json") for part in ("prompt", "reference")}
    figures = first.read("scores.json")
    assert purge.main([str(run.path), "--yes"]) == 0
    kept = tree(output)
    assert "purge.json" in {Path(name).name for name in kept} and run.report_html.is_file()
    assert not [name for name, content in kept.items() for text in texts if text in content]
    assert not [name for name in kept if name.endswith(".safetensors")]
    capsys.readouterr()
    assert ls.main([str(output), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["state"] == "done"
    assert one["knowledge_left"]["value"] == figures["unlearned"]["knowledge_left"]
    new = foretold([*small(FIRST), f"output={output}"], tmp_path / "a", capsys)
    assert new == dict.fromkeys(first.from_cache, False)
