"""Run by test_zero.py under torchrun: unlearnings under ZeRO 0-3, whose curves and weights rank 0 writes.

Arguments: a folder with the model that all start from, and parts: `whole` and `wide` (from beginning to end), `cut`
(up to step 3), `resume` (from there to the end), `sharded`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import load_file, save_file

from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from tests.training.conftest import small_world, untrained_model
from tests.training.sharded_ranks import sharded
from tests.training.zero_cases import CUT, CUTS, GOES_ON, RUNS, WIDE, ZERO2, Run, train_part


def run_part(name: str, folder: Path, ranks: Ranks) -> None:
    if name == "sharded":
        for source in ("untied", "tied"):
            sharded(folder, source, ranks)
        return
    world = small_world()
    loaded = untrained_model(world)
    loaded.model.load_state_dict(load_file(folder / "model.safetensors"))
    if name in ("whole", "wide"):
        for run in RUNS if name == "whole" else WIDE:
            finish(run, f"{name}-{run.name}", folder, loaded, ranks)
    if name == "cut":
        for run in CUTS:
            kept = folder / "checkpoints" / run.name
            train_part(run, run.engine, world, loaded, ranks, reference_folder(folder, run), last=CUT, checkpoints=kept)
    if name == "resume":
        for run in GOES_ON[ranks.world]:
            finish(run, f"{run.name}-{ranks.world}", folder, loaded, ranks, folder / "checkpoints" / run.name)
        finish(ZERO2, f"local-{ranks.world}", folder, loaded, ranks, folder / "checkpoints" / "local")


def reference_folder(folder: Path, run: Run) -> Path:
    """The folder for the reference table of a run in two parts, which the first part makes."""
    return folder / "references" / f"cut-{run.name}"


def finish(
    run: Run, name: str, folder: Path, loaded: LoadedModel, ranks: Ranks, checkpoints: Path | None = None
) -> None:
    """Trains to the end; writes the curve, the weights, and each rank's state of reward and adversary."""
    first = CUT if checkpoints is not None else 0
    references = reference_folder(folder, run) if first else folder / "references" / name
    curve, engine, objective = train_part(
        run, run.engine, small_world(), loaded, ranks, references, first, checkpoints=checkpoints
    )
    weights = dict(engine.weights())
    save_file(objective.state_dict(), folder / f"{name}.rank{ranks.rank}.safetensors")
    if ranks.first:
        (folder / f"{name}.json").write_text(json.dumps(curve))
        save_file(weights, folder / f"{name}.safetensors")


def main() -> None:
    dist.init_process_group("gloo")
    for name in sys.argv[2].split(","):
        run_part(name, Path(sys.argv[1]), Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
