"""What a run that was out of memory is told to type: it lowers the memory of that stage, and composes."""

from __future__ import annotations

import pytest

from erulab.config.compose import compose_config
from erulab.planning.relief import options_that_help

ATTACKS = "attack=[quantize,prune]"
CASES = [
    # (overrides of the run, stage, on a GPU, what helps)
    ([], "unlearn", False, ["trainer.micro_batch=8", "trainer.checkpointing=true", "trainer.optimizer=adafactor"]),
    (["trainer.micro_batch=8"], "unlearn", False, ["trainer.micro_batch=4", "trainer.checkpointing=true"]),
    (["target.micro_batch=4"], "target", False, ["target.micro_batch=2", "trainer.checkpointing=true"]),
    # A learned model's own micro-batch wins over trainer.micro_tokens.
    (["trainer.micro_tokens=900", "target.micro_batch=4"], "oracle", False, ["target.micro_batch=2"]),
    (["trainer.micro_tokens=900"], "target", False, ["trainer.micro_tokens=450"]),
    # All rows of a step must be in one forward.
    (["reward.z=batch"], "unlearn", False, ["trainer.checkpointing=true", "trainer.optimizer=adafactor"]),
    (["evaluation.batch_tokens=4096"], "evaluate", True, ["evaluation.batch_tokens=2048"]),
    ([ATTACKS], "attack", True, ["evaluation.batch_tokens=2048", "fewer attacks, such as attack=[quantize]"]),
]


@pytest.mark.parametrize(("overrides", "stage", "gpu", "first"), CASES)
def test_what_helps_comes_first_and_composes(overrides: list[str], stage: str, gpu: bool, first: list[str]) -> None:
    """FAULTS 23."""
    config = compose_config(["trainer.global_batch=16", "tracker=none", *overrides])
    found = options_that_help(config, stage, gpu=gpu)
    assert found[: len(first)] == first and len(found) <= 3
    for override in found:
        if " " not in override:
            compose_config(["trainer.global_batch=16", "tracker=none", *overrides, override])


def test_adapters_are_offered_only_to_methods_that_take_them() -> None:
    offered = {method: offers_adapters(method) for method in ("npo", "task_vector")}
    assert offered == {"npo": True, "task_vector": False}


def offers_adapters(method: str) -> bool:
    overrides = [f"method={method}", "adversary=none", "trainer.checkpointing=true", "trainer.optimizer=adafactor"]
    if method == "npo":
        overrides.append("reward=reference")
    else:
        overrides.append("reward=none")
    return "model.lora.rank=16" in options_that_help(compose_config(overrides), "unlearn", gpu=False)
