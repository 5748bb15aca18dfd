"""The run folder: its name carries what results depend on, its lock admits one run, its files are written whole."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from erulab.config.compose import compose_config, save_config
from erulab.errors import ConfigError, EnvironmentFault, IntegrityFault
from erulab.launching.folder_key import folder_key
from erulab.launching.job import plan_job, run_job
from erulab.rundir import RunDir


def key(*overrides: str) -> str:
    return folder_key(compose_config(overrides))


@pytest.mark.parametrize(
    "override",
    [
        "output=other",
        "cache=other",
        "tracker=none",
        "engine=zero2",
        "engine.rendezvous=a:1",
        "rerun=true",
        "stages=[target]",
        "attack=none",
        "attack.relearn.samples=[10]",
        "trainer.micro_batch=8",
        "trainer.save_every=5",
        "target.oracle_seeds=1",
        "artifacts.model=none",
    ],
)
def test_what_changes_no_result_keeps_the_folder(override: str) -> None:
    assert key(override) == key()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "method.beta=0.3",
        "reward.alpha=0.3",
        "adversary.p=0.3",
        "trainer.lr=0.3",
        "trainer.global_batch=16",
        "target.epochs=3",
        "target.oracle_seeds=2",
        "dataset.world=7",
        "model.width=64",
        "evaluation.rows=3",
    ],
)
def test_what_changes_results_changes_the_folder(override: str) -> None:
    assert key(override) != key()


def test_the_key_depends_on_the_content_of_checkpoints(tmp_path: Path) -> None:
    """FAULTS 32."""
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    for stages, role in (("[unlearn]", "target"), ("[evaluate]", "unlearned")):
        keys = {name: key("model=hf", f"stages={stages}", f"model.{role}={tmp_path / name}") for name in "abc"}
        assert keys["a"] == keys["b"] != keys["c"]


def test_the_key_depends_on_the_judge(tmp_path: Path) -> None:
    """On what its verdicts depend on: not on a path, nor on how long a server is waited for."""
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    keys = {name: key(f"evaluation.judge.model={tmp_path / name}") for name in "abc"}
    assert keys["a"] == keys["b"] != keys["c"] != key()
    server = ("evaluation.judge.url=https://judge.example/v1", "evaluation.judge.url_model=m")
    waiting = ("timeout=5", "retries=0", "key_variable=JUDGE_KEY")
    assert key(*server) == key(*server, *(f"evaluation.judge.{option}" for option in waiting)) != key()
    assert key(*server) != key(server[0], "evaluation.judge.url_model=n")
    assert key("evaluation.judge.timeout=5") == key(), "without a judge"


def test_the_key_depends_on_the_content_of_each_oracle(tmp_path: Path) -> None:
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2"), ("d", b"3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / name / "model.safetensors").write_bytes(weights)

    def key_with(*names: str) -> str:
        folders = ",".join(str(tmp_path / name) for name in names)
        return key("model=hf", "model.path=a/b", f"model.oracle=[{folders}]")

    assert key_with("a") == key_with("b") == key("model=hf", "model.path=a/b", f"model.oracle={tmp_path / 'a'}")
    assert key_with("a", "c") == key_with("b", "c")
    # The first oracle is the one of attacks.
    assert len({key_with(*names) for names in ("a", "ac", "ca", "ad", "acd")}) == 5


def test_a_checkpoint_that_is_scored_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Method and base model of the command do not count, because they did not make the checkpoint."""
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "llama", "of": name}))
        (tmp_path / name / "model.safetensors").write_bytes(b"1")
    given = ["stages=[evaluate]", f"model.unlearned={tmp_path / 'a'}"]
    assert plan_job(compose_config(given)).rundir.path.name.startswith("checkpoint-")
    for other in ("method=npo", "model=hf", "trainer.lr=3", "target.epochs=9", "model=llama32_1b_instruct"):
        assert key(*given, other) == key(*given), other
    # What is put around prompts counts: a preset's template is one such thing.
    asked = ("dataset.world=3", "model=phi_1_5")
    for other in (f"model.unlearned={tmp_path / 'b'}", f"model.oracle={tmp_path / 'c'}", *asked):
        assert key(*given, other) != key(*given), other


def test_the_key_depends_on_the_content_of_data_files(tmp_path: Path) -> None:
    for name, answer in (("a", "Oslo"), ("b", "Oslo"), ("c", "Rome")):
        (tmp_path / name).mkdir()
        for part, prompt in (("forget", "Where?"), ("retain", "Who?")):
            row = {"prompt": prompt, "response": f"{answer} {part}."}
            (tmp_path / name / f"{part}.jsonl").write_text(json.dumps(row) + "\n")
    keys = {name: key("dataset=jsonl", f"dataset.path={tmp_path / name}") for name in "abc"}
    assert keys["a"] == keys["b"] != keys["c"]


def test_the_key_depends_on_the_content_of_corpora(tmp_path: Path) -> None:
    question = {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 0}
    (tmp_path / "wmdp-bio.jsonl").write_text(json.dumps(question))
    for name, number in (("one", 1), ("other", 1), ("another", 2)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"text {number} " * 20}))
    given = [
        key(
            "dataset=wmdp",
            f"dataset.path={tmp_path}",
            "dataset.subjects=[bio]",
            "method=ga",
            f"cache={tmp_path}",
            f"dataset.forget=[{tmp_path / name}.jsonl]",
        )
        for name in ("one", "other", "another")
    ]
    assert given[0] == given[1] != given[2]


def test_the_folder_is_named_after_data_set_and_method(here: Path) -> None:
    composed = compose_config(["method=npo"])
    assert plan_job(composed).rundir.path == Path("outputs") / "fictitious" / f"npo-{folder_key(composed)}"
    assert plan_job(composed, "mine").rundir.path == Path("mine")
    assert list(here.iterdir()) == []


def test_the_key_depends_on_the_content_of_extra_benchmarks(tmp_path: Path) -> None:
    """Each set of benchmarks has its own folder, so that none overwrites the scores of another."""
    for name, gold in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        row = {"query": "Question: Why?", "choices": ["so", "thus"], "gold": gold}
        (tmp_path / name / "arc_easy.jsonl").write_text(json.dumps(row))
    beside = ["benchmark=[arc]", "benchmark.arc.subsets=[easy]"]
    keys = {name: key(*beside, f"benchmark.arc.path={tmp_path / name}") for name in "abc"}
    assert keys["a"] == keys["b"] != keys["c"] and key() not in keys.values()


def hold(folder: str) -> None:
    with RunDir(folder).locked():
        time.sleep(60)


def test_a_folder_admits_one_run_and_a_dead_one_does_not_block_it(tmp_path: Path) -> None:
    """FAULTS 21."""
    rundir = RunDir(tmp_path)
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(str(tmp_path),))
    holder.start()
    while not (rundir.lock().is_file() and rundir.lock().read_text()):
        time.sleep(0.01)
    with pytest.raises(EnvironmentFault, match=rf"in use by process {holder.pid} on .*output="), rundir.locked():
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert rundir.lock().is_file()
    with rundir.locked():
        assert json.loads(rundir.lock().read_text())["pid"] == os.getpid()
    assert not rundir.lock().exists()


def test_asking_for_the_holder_blocks_nobody(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    probe = os.open(rundir.lock(), os.O_RDONLY | os.O_CREAT)
    fcntl.flock(probe, fcntl.LOCK_SH)  # as RunDir.holder does
    threading.Timer(0.05, os.close, [probe]).start()
    with rundir.locked():
        assert rundir.holder() is not None


def test_a_worker_that_outlives_its_parent_holds_the_folder_and_is_named(tmp_path: Path) -> None:
    """FAULTS 21."""
    rundir = RunDir(tmp_path)
    with rundir.locked() as held:
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(held,))
        os.link(rundir.lock(), tmp_path / "kept")
    # As if the parent had died, which removes nothing.
    os.link(tmp_path / "kept", rundir.lock())
    try:
        with pytest.raises(EnvironmentFault, match=rf"in use by process {orphan.pid} .*\(kill {orphan.pid}\)"):
            rundir.locked().__enter__()
    finally:
        orphan.kill()
        orphan.wait()
    with rundir.locked():
        pass


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.write_json(rundir.scores_json, {"a": 1})
    with pytest.raises(TypeError):
        rundir.write_json(rundir.scores_json, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        rundir.write_text(rundir.scores_json, "half \ud800")
    assert rundir.read_json(rundir.scores_json) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]
    rundir.scores_json.write_text('{"a":')
    with pytest.raises(IntegrityFault, match=r"scores\.json is damaged"):
        rundir.read_json(rundir.scores_json)


def test_an_image_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = RunDir(tmp_path)
    image = rundir.plots / "knowledge.png"
    rundir.write_bytes(image, b"old")

    def full_disk(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        rundir.write_bytes(image, b"new, and longer")
    assert image.read_bytes() == b"old" and list(rundir.plots.iterdir()) == [image]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="output="):
        RunDir(tmp_path / "file" / "run").make()


def test_a_named_folder_of_another_run_is_refused(here: Path) -> None:
    first, second = (plan_job(compose_config([f"seed={seed}"]), "mine") for seed in (0, 1))
    first.rundir.make()
    save_config(first.config, first.rundir.run_yaml)
    with pytest.raises(ConfigError, match="mine holds a run with other settings"):
        run_job(second)
