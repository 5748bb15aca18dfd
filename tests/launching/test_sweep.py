"""Sweeps: all jobs checked first, all run, a failing one does not stop the rest, finished ones are not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from erulab.config.compose import CONF, load_config
from erulab.launching.sweep import Sweep
from tests.commands import Answer

# A run as reporting reads it; beta 0.2 fails.
BODY = """
text = (folder / "run.yaml").read_text()
with open("ran", "a") as ran:
    ran.write("x")
if "beta: 0.2" in text:
    end(3, "no rows")
model = {"forget/probability": 0.1, "retain/probability": 0.9}
(folder / "scores.json").write_text(json.dumps({m: model for m in ("target", "unlearned", "oracle")}))
(folder / "attacks.json").write_text("[]")
(folder / "stages.json").write_text(json.dumps({s: {"key": "k", "seconds": 1.0, "from_cache": False, "done": True}
                                                for s in ("target", "oracle", "unlearn", "evaluate")}))
(folder / "model").mkdir(exist_ok=True)
(folder / "model" / "config.json").write_text("{}")
head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
(folder / "model" / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"1234")
end(0)
"""


@pytest.fixture
def ran(here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many workers have started so far."""
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(BODY))
    return lambda: len((here / "ran").read_text()) if (here / "ran").is_file() else 0


def test_a_sweep_goes_on_after_a_failure_and_compares(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    typed = ("-m", "method=npo", "method.beta=0.1,0.2,0.3", "attack=none")
    first = command(*typed)
    assert first.code == 3
    assert ran() == 3
    assert "job 3 of 3" in first.out
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    table = json.loads((folder / "sweep.json").read_text())
    assert [job["code"] for job in table["jobs"]] == [0, 3, 0]
    assert [job["overrides"][1] for job in table["jobs"]] == ["method.beta=0.1", "method.beta=0.2", "method.beta=0.3"]
    # One table over the jobs, on the console and in the folder.
    done = [Path(job["folder"]).name for job in table["jobs"] if job["code"] == 0]
    assert (folder / "report.md").is_file()
    assert (folder / "report.html").is_file()
    assert first.out.count("0.1") >= 2
    groups = {load_config(here / job["folder"] / "run.yaml").tracker.group for job in table["jobs"]}
    assert groups == {folder.name}
    assert len(set(done)) == 2
    # The same command does only what is missing.
    second = command(*typed)
    assert second.code == 3
    assert ran() == 4
    assert [child.name for child in (here / "outputs" / "sweeps").iterdir()] == [folder.name]


def test_equal_jobs_run_once(command: Callable[..., Answer], ran: Callable[[], int]) -> None:
    assert command("-m", "method=npo", "method.beta=0.1,0.10", "attack=none").code == 0
    assert ran() == 1


def test_jobs_that_differ_in_attacks_have_folders_of_their_own(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    assert command("-m", "method=npo", "attack=[relearn],[quantize]").code == 0
    assert ran() == 2
    assert len(list((here / "outputs" / "fictitious").iterdir())) == 2


def folders(*typed: list[str]) -> list[str]:
    """Returns the folder names of a sweep over jobs with these overrides; nothing runs."""

    def composed(overrides: list[str]) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("run", overrides, return_hydra_config=True)

    return [Path(task.folder).name for task in Sweep(typed, composed, None, []).tasks]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("artifacts.model", ("full", "none")),
        ("engine", ("local", "zero2", "auto")),  # auto is local here
        ("trainer.micro_batch", ("8", "16")),
        ("trainer.micro_tokens", ("2048", "4096")),
        ("trainer.checkpointing", ("true", "false")),
        ("trainer.save_every", ("10", "20")),
        ("target.micro_batch", ("8", "16")),
        ("evaluation.batch_tokens", ("2048", "4096")),
        ("evaluation.samples", ("1", "2")),
        ("evaluation.judge.retries", ("1", "2")),
    ],
)
def test_what_changes_no_result_sets_jobs_of_a_sweep_apart(key: str, values: tuple[str, ...], here: Path) -> None:
    both = folders(*([f"{key}={value}"] for value in values))
    assert len(both) == len(set(both)) == 2
    assert len({name.rpartition("-")[0] for name in both}) == 1


def test_the_rendezvous_does_not_change_the_folder(here: Path) -> None:
    """A Slurm job that continues a sweep has another address."""
    hosts = ["engine.nodes=2", "engine.processes=1"]
    first, second = (
        folders(*([engine, *hosts, f"engine.rendezvous={address}"] for engine in ("engine=zero2", "engine=zero3")))
        for address in ("a:1", "b:2")
    )
    assert first == second and len(set(first)) == 2


def test_presets_sweep_by_themselves_and_yield(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    answer = command("sweep=methods", "method=ga,gd", "attack=none", "hydra.sweep.dir=mine")
    assert answer.code == 0
    assert ran() == 2
    assert [job["overrides"][0] for job in json.loads((here / "mine" / "sweep.json").read_text())["jobs"]] == [
        "method=ga",
        "method=gd",
    ]
    assert not (here / "multirun.yaml").exists()


def test_a_single_run_takes_the_folder_it_is_given(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    assert command("method=npo", "attack=none", "hydra.run.dir=mine").code == 0
    assert ran() == 1
    assert (here / "mine" / "scores.json").is_file()
    assert not (here / "outputs").exists()
    refused = command("method=ga", "attack=none", "hydra.run.dir=mine")
    assert refused.code == 2
    assert "mine holds a run with other settings" in refused.err


def damaged(folder: Path, what: str) -> None:
    """Does to a finished run what a bad disk or a hasty hand does."""
    weights = folder / "model" / "model.safetensors"
    if what == "scores deleted":
        (folder / "scores.json").unlink()
    elif what == "scores cut":
        (folder / "scores.json").write_bytes((folder / "scores.json").read_bytes()[:20])
    elif what == "weights cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif what == "model deleted":
        weights.unlink()
    elif what == "run.yaml cut":  # still YAML, of other settings
        (folder / "run.yaml").write_text("seed: 1\n")
    else:
        (folder / "run.yaml").write_bytes(b"a: [\xff")


DAMAGES = ("scores deleted", "scores cut", "weights cut", "model deleted", "run.yaml damaged", "run.yaml cut")


@pytest.mark.parametrize("what", DAMAGES)
def test_a_finished_run_that_was_damaged_is_run_again(
    what: str, command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    """FAULTS 33: a sweep believes exit.json only while what the run made is there."""
    typed = ("-m", "method=npo", "method.beta=0.1,0.3", "attack=none")
    assert command(*typed).code == 0
    assert command(*typed).out.count("finished before") == 2 and ran() == 2
    folder = min((here / "outputs" / "fictitious").iterdir())
    damaged(folder, what)
    again = command(*typed)
    assert again.code == 0 and ran() == 3
    assert again.out.count("finished before") == 1
    assert ("is written anew" in again.err) is what.startswith("run.yaml")
    assert command(*typed).out.count("finished before") == 2


def test_a_damaged_run_yaml_is_named_where_the_user_named_the_folder(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    """FAULTS 33: erulab cannot know which run a folder of another name holds."""
    typed = ("method=npo", "attack=none", "hydra.run.dir=mine")
    assert command(*typed).code == 0
    (here / "mine" / "run.yaml").write_text("a: [")
    refused = command(*typed)
    assert refused.code == 2 and ran() == 1
    (line,) = refused.err.splitlines()
    assert "mine cannot be continued, its settings are unreadable" in line and "delete mine/run.yaml" in line
