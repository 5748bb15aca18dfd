"""Methods that compute new weights: the run's model against the formula on the weights that the cache holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import Finished, Runner

ONLY_UNLEARN = ("stages=[target,unlearn]", "attack=none")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def unlearned(run: Runner, *overrides: str) -> Finished:
    done = run(*ONLY_UNLEARN, *overrides)
    assert done.code == 0
    return done


def folders(first: Finished, kind: str) -> list[Path]:
    root = first.rundir.path.parents[1] / ".cache" / kind
    return sorted(path.parent for path in root.glob("*/entry.json"))


@pytest.fixture(scope="module")
def target(first: Finished) -> dict[str, torch.Tensor]:
    stages = first.read("stages.json")
    return weights(first.rundir.path.parents[1] / ".cache" / "learned" / stages["target"]["key"] / "model")


def entry(done: Finished) -> dict[str, object]:
    found: dict[str, object] = done.read("stages.json")["unlearn"]
    return found


def test_a_task_vector_of_length_zero_is_the_target(run: Runner, target: dict[str, torch.Tensor]) -> None:
    same = weights(unlearned(run, "method=task_vector", "method.alpha=0").rundir.model)
    assert same.keys() == target.keys() and all(torch.equal(same[name], target[name]) for name in target)


def test_several_lengths_of_a_task_vector_cost_one_training(
    run: Runner, first: Finished, target: dict[str, torch.Tensor]
) -> None:
    """Each model is theta - alpha (theta_ft - theta) of the one fine-tuned model, whose costs and curve all have."""
    before = set(folders(first, "finetuned"))  # of other tests, at other learning rates
    training_alone = ("method=task_vector", "trainer.lr=1.7e-3")
    one, five = [unlearned(run, *training_alone, f"method.alpha={alpha}") for alpha in (1, 5)]
    (folder,) = set(folders(first, "finetuned")) - before
    finetuned = weights(folder / "model")
    for alpha, done in ((1, one), (5, five)):
        found = weights(done.rundir.model)
        for name, theta in target.items():
            expected = theta.double() - alpha * (finetuned[name].double() - theta.double())
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-6)
            assert not torch.equal(finetuned[name], theta), name
    training = json.loads((folder / "entry.json").read_text())["costs"]
    assert training["flops_forward"] > 0
    for done in (one, five):
        assert entry(done)["flops_forward"] == training["flops_forward"]
        assert entry(done)["seconds"] >= training["seconds"]  # type: ignore[operator]
        steps = [json.loads(line) for line in done.rundir.metrics_jsonl.read_text().splitlines()]
        assert [line["step"] for line in steps] == [0, 1, 2, 3]


def test_fine_tuning_of_a_task_vector_lowers_the_loss_on_forget_rows(run: Runner) -> None:
    done = unlearned(run, "method=task_vector", "trainer.steps=20")
    losses = [json.loads(line)["loss"] for line in done.rundir.metrics_jsonl.read_text().splitlines()]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_undo_without_noise_and_distillation_is_its_first_method(run: Runner) -> None:
    """Bit for bit; and the first method's model is the product of a run with that method alone."""
    alone = unlearned(run, "method=npo")
    undo = unlearned(run, "method=undo", "method@method.first=npo", "method.alpha=0", "method.distil_steps=0")
    expected, found = weights(alone.rundir.model), weights(undo.rundir.model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert entry(undo)["flops_forward"] == entry(alone)["flops_forward"]


def test_undo_mixes_noise_in_and_distils_the_first_model_back(run: Runner, first: Finished) -> None:
    """More noise is further away; distillation lowers the KL to the first model; the curve has both trainings."""
    noise = ("method=undo", "method@method.first=npo", "method.alpha=0.5", "method.beta=1")
    before = len(folders(first, "unlearned"))
    mixed = unlearned(run, *noise, "method.distil_steps=0")
    distilled = unlearned(run, *noise, "method.distil_steps=30", "method.distil_lr=3e-3")
    npo = weights(unlearned(run, "method=npo").rundir.model)
    found = weights(mixed.rundir.model)
    norms = [name for name in npo if npo[name].dim() == 1]
    assert norms and all(torch.equal(found[name], npo[name]) for name in norms)
    assert not any(torch.equal(found[name], npo[name]) for name in npo.keys() - set(norms))
    assert len(folders(first, "unlearned")) - before <= 3  # npo once, and two of undo
    lines = [json.loads(line) for line in distilled.rundir.metrics_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(34))
    assert "forget_loss" in lines[0] and "forget_loss" not in lines[4]
    losses = [line["loss"] for line in lines[4:]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
