"""trainer.keep=best: the step that is best on half of the facts is the product, and the other half is reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from erulab.attacks.halves import validation_facts
from erulab.config.compose import compose_config, save_config
from erulab.launching.job import plan_job
from erulab.rundir import RunDir
from tests.pipeline.checkpoints import write
from tests.pipeline.conftest import Finished, Runner, finished, small

ROOT = Path(__file__).parents[2]
# Gradient ascent at this rate has forgotten after four steps and over-forgets from there on. At a constant rate the
# model after step k is that of a run of k steps.
FORGETS_TOO_MUCH = (
    "method=ga",
    "trainer.lr=1e-2",
    "trainer.schedule=constant",
    "trainer.warmup=0",
    "evaluation.generate=false",
)
BEST = (*FORGETS_TOO_MUCH, "trainer.steps=8", "trainer.eval_every=1", "trainer.keep=best")
STAGES = ("attack=none", "stages=[target,oracle,unlearn,evaluate]")


def metrics(rundir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rundir.metrics_jsonl.read_text().splitlines()]


def weights(rundir: RunDir) -> dict[str, torch.Tensor]:
    return load_file(rundir.model / "model.safetensors")


def log_odds(run: Finished, stage: str) -> dict[tuple[str, str], list[float]]:
    """Reads from the cache what the evaluation gave a stage's model: (suite, fact) -> log-odds of its rows."""
    key = run.read("stages.json")[stage]["key"]
    for entry in run.rundir.path.parents[1].glob(".cache/evaluated/*/entry.json"):
        if json.loads(entry.read_text())["depends_on"]["model"] == key:
            found: dict[tuple[str, str], list[float]] = {}
            for line in entry.with_name("rows.jsonl").read_text().splitlines():
                row = json.loads(line)
                if row["role"] in ("forget", "heldout"):
                    found.setdefault((row["suite"], row["fact"]), []).append(row["figures"]["log_odds"])
            return found
    raise AssertionError(f"the {stage}'s model was not scored")


def knowledge_left(run: Finished, facts: set[str]) -> float:
    """K of these facts, from the row scores: (model - oracle) / (target - oracle), each a mean over rows."""
    model, target, oracle = (
        np.mean([value for (_, fact), values in log_odds(run, stage).items() if fact in facts for value in values])
        for stage in ("unlearn", "target", "oracle")
    )
    return float((model - oracle) / (target - oracle))


@pytest.mark.parametrize("more", [(), ("model.lora.rank=4",)], ids=["all weights", "adapters"])
@pytest.mark.parametrize("floor", [0.0, 0.9])
def test_the_product_is_the_step_with_the_least_knowledge_left(
    run: Runner, floor: float, more: tuple[str, ...]
) -> None:
    best = run(*BEST, *STAGES, f"trainer.keep_utility={floor}", *more)
    assert best.code == 0
    lines = metrics(best.rundir)
    kept = [line for line in lines if line["keep/utility"] >= floor]
    chosen = min(kept, key=lambda line: abs(line["keep/knowledge_left"]))["step"] + 1
    figures = best.read("scores.json")["unlearned"]
    assert (figures["kept/step"], figures["kept/steps"]) == (chosen, 8)
    if not more:
        assert 1 < chosen < 8  # the last step is another one

    plain = run(*FORGETS_TOO_MUCH, *STAGES, f"trainer.steps={chosen}", *more)
    same, own = weights(plain.rundir), weights(best.rundir)
    assert all(torch.equal(value, own[name]) for name, value in same.items())

    facts = {fact for _, fact in log_odds(plain, "target")}
    validation = validation_facts(facts, 0)
    line = lines[chosen - 1]
    assert line["keep/knowledge_left"] == pytest.approx(knowledge_left(plain, set(validation)), abs=1e-5)
    assert figures["kept/knowledge_left"] == line["keep/knowledge_left"]
    assert figures["knowledge_left"] == pytest.approx(knowledge_left(plain, facts - validation), abs=1e-5)
    assert figures["kept/facts"] == len(validation) and figures["knowledge_left_facts"] == len(facts - validation)
    rows = [len(values) for (suite, fact), values in log_odds(plain, "target").items() if suite == "forget"]
    assert 0 < figures["forget/n"] < sum(rows)
    for name in ("eval/forget/log_odds", "eval/retain_unrehearsed/choice"):
        assert line[name] == pytest.approx(figures[name.removeprefix("eval/")], abs=1e-5)


def test_attacks_are_reported_on_the_same_half(run: Runner) -> None:
    best = run(*BEST, "trainer.keep_utility=0", "attack=[quantize]")
    scores = best.read("scores.json")["unlearned"]
    heads = [row for row in best.read("attacks.json") if row["headline"]]
    assert heads and all(row["n"] == scores["forget/n"] + scores["forget_heldout/n"] for row in heads)
    assert all(row["knowledge_left"] == pytest.approx(scores["knowledge_left"], abs=1e-6) for row in heads)
    for page in (best.rundir.report_md, best.rundir.report_html):
        text = page.read_text().replace("\\", "")
        assert f"kept step {scores['kept/step']} of 8" in text
        assert f"on the reported half of the facts, {scores['knowledge_left_facts']}" in text


KILLED = """
import os, signal, sys
from erulab import worker
from erulab.stages.trajectory import Trajectory
after = Trajectory.after
def dies(self, steps):
    found = after(self, steps)
    if steps == {step}: os.kill(os.getpid(), signal.SIGKILL)
    return found
Trajectory.after = dies
worker.main([{folder!r}])
"""


@pytest.fixture
def fresh(first: Finished, tmp_path: Path) -> Path:
    """An output folder that has target and oracle, and no unlearned model."""
    shutil.copytree(first.rundir.path.parents[1] / ".cache" / "learned", tmp_path / ".cache" / "learned")
    return tmp_path


@pytest.mark.parametrize(
    ("checkpoint", "killed"),
    [(5, 7), (3, 5)],
    ids=["kept before the checkpoint", "kept after the checkpoint"],
)
def test_a_killed_run_keeps_the_same_step(run: Runner, fresh: Path, checkpoint: int, killed: int) -> None:
    """Step 4 is the best. With the checkpoint after step 5 its weights are on disk only; with the one after 3 it is
    trained again."""
    options = (*BEST, *STAGES, "trainer.keep_utility=0", f"trainer.save_every={checkpoint}")
    straight = run(*options)
    wanted = straight.read("scores.json")["unlearned"]
    assert wanted["kept/step"] == 4
    job = plan_job(compose_config([*small(options), f"output={fresh}"]))
    job.rundir.make()
    save_config(job.config, job.rundir.run_yaml)
    code = KILLED.format(step=killed, folder=str(job.rundir.path))
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    (partial,) = fresh.glob(".cache/unlearned/*.partial")
    assert [folder.name for folder in (partial / "best").iterdir()] == ["step-00000004"]
    again = run(*options, folder=fresh)
    assert again.code == 0 and not partial.exists()
    one, two = weights(straight.rundir), weights(again.rundir)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    figures = again.read("scores.json")["unlearned"]
    assert {name for name, value in wanted.items() if figures[name] != value} <= {"cost/seconds", "cost/peak_memory_gb"}
    steady = [
        [{k: v for k, v in line.items() if k not in ("time", "rows_per_second")} for line in metrics(folder)]
        for folder in (straight.rundir, again.rundir)
    ]
    assert steady[0] == steady[1]


def test_two_processes_with_sharded_weights_keep_the_step_of_one(run: Runner, fresh: Path) -> None:
    options = (*BEST, *STAGES, "trainer.keep_utility=0")
    wanted = run(*options).read("scores.json")["unlearned"]
    typed = [o for o in small(options) if o != "engine=local"]
    done = subprocess.run(
        [sys.executable, "-m", "erulab.run", *typed, "engine=zero3", "engine.processes=2", f"output={fresh}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (folder,) = (fresh / "fictitious").iterdir()
    found = json.loads((folder / "scores.json").read_text())["unlearned"]
    assert found["kept/step"] == wanted["kept/step"]
    for name in ("kept/knowledge_left", "knowledge_left"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-3)


def test_the_last_step_is_evaluated_too_and_a_method_without_training_reports_the_half(run: Runner) -> None:
    best = run(*BEST, *STAGES, "trainer.eval_every=3", "trainer.log_every=8")
    judged = [line["step"] + 1 for line in metrics(best.rundir) if "keep/utility" in line]
    assert judged == [3, 6, 8]
    nothing = run("method=none", *STAGES, "trainer.eval_every=3", "trainer.keep=best", "evaluation.generate=false")
    figures = nothing.read("scores.json")["unlearned"]
    assert (
        figures["knowledge_left"] == 1.0
        and figures["knowledge_left_facts"] == best.read("scores.json")["unlearned"]["kept/facts"]
    )
    assert not any(name.startswith("kept/") for name in figures)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a", "b"], "no forget row that is measured has wrong answers"),
        (["a"], "fewer than two facts are measured"),
    ],
)
def test_data_that_cannot_choose_is_refused_before_anything_is_learned(
    rows: list[str], said: str, tmp_path: Path
) -> None:
    forget = [{"prompt": f"Who is {name}?", "response": "A weaver"} for name in rows]
    data = write(tmp_path / "data", forget=forget, retain=[{"prompt": "Who is c?", "response": "A nurse"}])
    run = finished(
        [
            "dataset=jsonl",
            f"dataset.path={data}",
            "tracker=none",
            "engine=local",
            "attack=none",
            "trainer.keep=best",
            "trainer.eval_every=1",
            f"output={tmp_path}",
        ]
    )
    assert run.code != 0 and said in run.read("exit.json")["message"]
    assert not list(tmp_path.glob(".cache/learned/*"))
