"""Starts zero_ranks.py under torchrun, once for all tests of DeepSpeed, because a start takes longer than the runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import save_file

from erulab.data.rows import Benchmark
from erulab.launching.extension_locks import remove_dead_locks
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.ranks import Ranks
from tests.training.zero_cases import CUT, LOCAL, ZERO2, train_part

SHARDED = ("untied", "tied")


def run_all(folder: Path, world: Benchmark, loaded: LoadedModel) -> None:
    """Runs two processes from beginning to end and in two parts; then one and four continue the first part."""
    save_file(loaded.model.state_dict(), folder / "model.safetensors")
    for name in SHARDED:
        save_folder(_large_model(world, tied=name == "tied"), folder / name)
    train_part(ZERO2, LOCAL, world, loaded, Ranks(), folder, last=CUT, checkpoints=folder / "checkpoints" / "local")
    _launch(folder, "sharded,whole,cut,resume", 2)
    _launch(folder, "resume", 1)
    _launch(folder, "resume,wide", 4)


def _large_model(world: Benchmark, *, tied: bool) -> LoadedModel:
    """About 43 MB."""
    loaded = TinyModel(TinyOptions(layers=10, width=256, heads=4)).load(world, seed=1)
    if tied:
        loaded.model.config.tie_word_embeddings = True
        loaded.model.get_output_embeddings().weight = loaded.model.get_input_embeddings().weight
    return loaded


def _launch(folder: Path, parts: str, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.getcwd(),
        "MALLOC_MMAP_THRESHOLD_": "100000",
    }
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        running = subprocess.Popen(
            [*command, "-m", "tests.training.zero_ranks", str(folder), parts],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while running.poll() is None:
            remove_dead_locks()  # of ranks that another test kills
            time.sleep(1)
        log.seek(0)
        assert running.returncode == 0, log.read()[-9000:]
