"""Run by test_zero.py under torchrun: the same unlearnings under ZeRO 0-3; rank 0 writes what they gave."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from erulab.options import Precision
from erulab.ranks import Ranks
from erulab.training.checkpoints import Checkpoints
from erulab.training.loop import train
from erulab.training.zero import ZeroEngine
from tests.training.conftest import Unlearning, small_model, small_world
from tests.training.test_zero import RUNS, Run


def run(one: Run, folder: Path, ranks: Ranks) -> None:
    world = small_world()
    unlearning = Unlearning(one.case, world, small_model(world), micro_batch=one.micro_batch, ranks=ranks)
    curve = []
    for first, last in one.parts:
        # A new engine for each part: the second continues from the first's checkpoint, as a killed run does.
        policy, objective, loop, _ = unlearning.build(folder)
        engine = ZeroEngine(
            policy, ranks, stage=one.stage, offload=False, weight_decay=0.01, clip=1.0, precision=Precision.fp32,
        )  # fmt: skip
        checkpoints = Checkpoints(folder / "checkpoints" / one.name, "key", ranks)
        for step, values in train(engine, objective, loop, ranks, checkpoints):
            assert step >= first
            curve.append(values)
            if step + 1 == last:
                checkpoints.save(last, engine, objective)
                break
    weights = engine.state_dict()
    if ranks.first:
        (folder / f"{one.name}.json").write_text(json.dumps(curve))
        save_file(weights, folder / f"{one.name}.safetensors")


def main() -> None:
    dist.init_process_group("gloo")
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    for one in RUNS:
        run(one, Path(sys.argv[1]), ranks)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
