"""Reading run folders back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erulab.errors import DataError
from erulab.reporting import load_run, load_runs
from tests.reporting.conftest import ATTACKS, SCORES, MakeRun


def test_a_run_is_read_as_it_is(make_run: MakeRun) -> None:
    run = load_run(make_run())
    assert run.scores == SCORES
    assert run.choice("method") == "eru" and run.choice("adversary") == "rfa"
    assert len(run.metrics) == 30 and run.metrics[3]["step"] == 3
    assert run.missing == ()


def test_missing_stages_are_named(make_run: MakeRun) -> None:
    stages = {"target": {"done": True, "seconds": 1.0, "key": "k", "from_cache": False}}
    run = load_run(make_run(stages=stages, without=("scores", "attacks", "samples")))
    assert run.missing == ("oracle", "unlearn", "evaluate", "attack", "report")
    assert run.scores == {} and run.attacks == []


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({"attack": {}}, ("oracle", "unlearn")),
        ({"method.name": "none"}, ("oracle", "attack")),
        ({"model.oracle": "org/oracle"}, ("unlearn", "attack")),
        ({"stages": ["target", "unlearn"]}, ("unlearn",)),
    ],
)
def test_only_what_was_asked_for_is_missing(
    make_run: MakeRun, config: dict[str, object], missing: tuple[str, ...]
) -> None:
    done = {"target": {"done": True}, "evaluate": {"done": True}, "report": {"done": True}}
    assert load_run(make_run(config=config, stages=done)).missing == missing


def test_a_line_that_a_crash_cut_is_left_out(make_run: MakeRun) -> None:
    folder = make_run(metrics=[{"step": 0, "loss": 1.0}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert load_run(folder).metrics == [{"step": 0, "loss": 1.0}]


def test_the_lines_before_a_damaged_one_are_read(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "metrics.jsonl").write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
    run = load_run(folder)
    assert run.metrics == [{"step": 0}]
    assert len(run.damaged) == 1 and "metrics.jsonl:2 is damaged" in run.damaged[0]


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_file_is_named_and_left_out(make_run: MakeRun, content: str) -> None:
    folder = make_run()
    (folder / "scores.json").write_text(content)
    run = load_run(folder)
    assert run.scores == {} and run.attacks == ATTACKS
    (line,) = run.damaged
    assert "scores.json is damaged" in line and "\n" not in line


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for load in (load_run, lambda folder: load_runs([folder])):
        with pytest.raises(DataError, match="is no run"):
            load(tmp_path)


def test_secrets_in_a_config_are_not_shown(make_run: MakeRun) -> None:
    run = load_run(make_run(config={"model.path": "hf_" + "a" * 30}, env={"command": "x model.token=hf_" + "b" * 30}))
    assert run.config["model"]["path"] == "[redacted]"
    assert "bbbb" not in str(run.env)


def test_a_sweep_is_its_jobs_in_order(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("npo-1"), make_run("eru-2")
    sweep = tmp_path / "outputs" / "sweeps" / "abc"
    sweep.mkdir(parents=True)
    jobs = [{"overrides": [], "folder": str(f), "code": 0} for f in (second, first, tmp_path / "never-started")]
    (sweep / "sweep.json").write_text(json.dumps({"key": "abc", "jobs": jobs}))
    assert [run.name for run in load_runs([sweep, first])] == ["eru-2", "npo-1"]


def test_a_sweep_is_found_after_outputs_moved(make_run: MakeRun, tmp_path: Path) -> None:
    job = make_run("npo-1")
    (tmp_path / "moved" / "fictitious").mkdir(parents=True)
    job.rename(tmp_path / "moved" / "fictitious" / "npo-1")
    sweep = tmp_path / "moved" / "sweeps" / "abc"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"jobs": [{"folder": "outputs/fictitious/npo-1", "code": 0}]}))
    assert [run.name for run in load_runs([sweep])] == ["npo-1"]


def test_a_parent_is_every_run_below_it(make_run: MakeRun, tmp_path: Path) -> None:
    for place, name in (("fictitious", "npo-1"), ("fictitious", "eru-2"), ("tofu", "eru-3"), (".cache", "old-4")):
        (tmp_path / "outputs" / place).mkdir(parents=True, exist_ok=True)
        make_run(name).rename(tmp_path / "outputs" / place / name)
    sweep = tmp_path / "outputs" / "sweeps" / "abc"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"jobs": [{"folder": "outputs/tofu/eru-3", "code": 0}]}))
    outputs = tmp_path / "outputs"
    assert [run.name for run in load_runs([outputs])] == ["eru-2", "npo-1", "eru-3"]
    assert [run.name for run in load_runs([outputs / "fictitious", sweep])] == ["eru-2", "npo-1", "eru-3"]


def test_a_sweep_with_no_started_job(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [{"folder": "nowhere/npo-1", "code": None}]}))
    with pytest.raises(DataError, match="has started"):
        load_runs([tmp_path])


def test_attack_rows_of_another_version_are_left_out(make_run: MakeRun) -> None:
    row = {key: value for key, value in ATTACKS[0].items() if key != "headline"}
    run = load_run(make_run(attacks=[row]))
    assert run.attacks == [] and "attacks.json is damaged: [0] has no headline" in run.damaged[0]
