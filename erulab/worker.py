"""One process of a run: reads RUN_DIR/run.yaml (typed, without Hydra), starts tracking and runs the pipeline."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import logging
import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers

import erulab
from erulab import faults
from erulab.config.compose import load_config
from erulab.costs.ledger import Ledger, peak_memory
from erulab.data.base import Dataset
from erulab.errors import Damaged, EnvironmentFault, ErulabError, Interrupted, OutOfMemory
from erulab.evaluation.external.base import ExternalBenchmark
from erulab.launching.rank_output import log_to, report_exit, write_exit
from erulab.models.loading import chat_of
from erulab.options import EngineName, RunConfig, Stage
from erulab.pipeline import Pipeline
from erulab.planning.relief import options_that_help
from erulab.ranks import Ranks, is_lost_connection
from erulab.redaction import print_exception
from erulab.registry import benchmarks, datasets, models
from erulab.reporting.results import show_results
from erulab.rundir import RunDir, make_folder
from erulab.stages.cache import Cache
from erulab.stages.context import Context, fit_benchmark
from erulab.stages.space import check_space
from erulab.stages.tracking import Tracker
from erulab.training.loader import ModelLoader
from erulab.training.stopping import StopRequest

log = logging.getLogger("erulab.worker")

# Another job of a sweep may be learning the same target for hours while this one waits at the lock.
# A rank that is silent ends the run sooner (launching.silence).
PATIENCE = datetime.timedelta(hours=24)
# Which code a stage runs through; the first that an error passed through names its stage.
STAGE_OF_MODULE = {
    "erulab.stages.attack": "attack",
    "erulab.stages.measuring": "evaluate",
    "erulab.stages.unlearn": "unlearn",
    "erulab.stages.learn": "target",
    "erulab.reporting": "report",
}
# What a run imports late, and what for each tracker.
LATE_IMPORTS = (
    "erulab.reporting.page",
    "matplotlib.backends.backend_agg",
    "transformers.models.llama.modeling_llama",
)
TRACKER_IMPORTS = {"wandb": ("wandb", "wandb.sdk.launch")}
# How long a rank that has lost another one lives on, so that torchrun sees the other one's end first.
SEEN_SECONDS = 1


def prepare(trackers: Sequence[str]) -> None:
    """Imports what runs import late, in a process that forks workers. Must start no thread.

    Args:
        trackers: their names, of the runs that will be forked.
    """
    # wandb reads them when it is imported; see the tracker.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for module in [*LATE_IMPORTS, *(name for tracker in trackers for name in TRACKER_IMPORTS.get(tracker, ()))]:
        with contextlib.suppress(ImportError):  # a run that needs it will say so
            importlib.import_module(module)


def main(argv: list[str]) -> int:
    """Runs one rank of the run folder `argv[0]`; returns the exit code, which rank 0 or a failing rank also writes."""
    sys.excepthook = print_exception
    rundir = RunDir(Path(argv[0]))
    ranks = Ranks(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    stop = StopRequest()
    stop.install()
    config = None
    try:
        log_to(rundir.run_log if ranks.first else None)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        config = load_config(rundir.run_yaml)
        run_rank(rundir, config, ranks, stop)
    except ErulabError as error:
        return report_exit(rundir, ranks, error.code, str(error), again=isinstance(error, Damaged))
    except Exception as error:
        if ranks.world > 1 and is_lost_connection(error):
            # The launcher says which rank was lost, if torchrun sees that one end first.
            log.info("lost another rank", exc_info=True)
            time.sleep(SEEN_SECONDS)
            message = f"lost the connection to another rank ({str(error).splitlines()[0]})"
            write_exit(rundir, ranks, Interrupted.code, f"{message}; {faults.CONTINUES}")
            return Interrupted.code
        fault = _machine_fault(error, rundir, config)
        if fault is not None:
            log.info("failed", exc_info=True)  # run.log says where; the terminal shows one line
            return report_exit(rundir, ranks, fault.code, str(fault))
        print_exception(type(error), error, error.__traceback__)
        log.exception("failed")
        return report_exit(rundir, ranks, 1, f"{type(error).__name__}: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return report_exit(rundir, ranks, 0, "") if ranks.first else 0


def run_rank(rundir: RunDir, config: RunConfig, ranks: Ranks, stop: StopRequest) -> None:
    """Runs all stages of one rank.

    Args:
        rundir: the run folder; its files are written by rank 0.
        config: the content of run.yaml.
        ranks: this process among all of the run.
        stop: asks the run to write a checkpoint and end.

    Raises:
        ErulabError: one line for the user, with an exit code.
    """
    make_folder(Path(config.cache), "cache folder", "cache")
    device = _choose_device(config, ranks)
    if config.engine.nodes > 1:
        for folder in (rundir.path, Path(config.cache)):
            _check_shared(folder, ranks)
    # erulab never draws from the global generator; it is seeded for libraries that do.
    torch.manual_seed(config.seed)
    context = build_context(rundir, config, ranks, device, stop)
    failed = True
    try:
        check_space(context)
        Pipeline(context, rundir).run()
        if ranks.first:
            show_results(rundir, config)
        failed = False
    finally:
        context.tracker.finish(failed=failed)


def build_context(rundir: RunDir, config: RunConfig, ranks: Ranks, device: torch.device, stop: StopRequest) -> Context:
    """Reads the run's data, makes what its stages share, and starts tracking.

    Args:
        rundir, config, ranks, stop: as for `run_rank`.
        device: of this rank.
    """
    folder = Path(config.cache)
    source = models.build(config.model)
    dataset: Dataset = datasets.build(config.dataset)
    raw = dataset.load(config.seed, folder)
    # Without a base model, the chat format is that of the model that is judged.
    chat = chat_of(config.model.unlearned, source.overrides) if config.only_given_models else source.chat(raw)
    measured_only = config.only_given_models and Stage.attack not in config.stages
    data = fit_benchmark(raw, dataset.identity(folder), chat, config, measured_only=measured_only)
    extra, external = [], []
    for options in config.benchmark.values():
        plugin: Dataset | ExternalBenchmark = benchmarks.build(options)
        if isinstance(plugin, ExternalBenchmark):
            external.append(plugin)
            continue
        raw = plugin.load(config.seed, folder)
        extra.append(fit_benchmark(raw, plugin.identity(folder), chat, config, measured_only=True))
    ledger = Ledger()
    loader = ModelLoader(config, source, ledger, device)
    cache = Cache(folder, ranks, _made_by(rundir, config, ranks, device), ledger, str(device))
    tracker = Tracker(rundir, config, ranks)
    return Context(
        config, data, tuple(extra), source, loader, cache, ledger, ranks, device, tracker, stop, tuple(external)
    )


def _choose_device(config: RunConfig, ranks: Ranks) -> torch.device:
    """Returns this rank's device; joins the process group if there are several processes or DeepSpeed needs one."""
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    if ranks.world > 1:
        dist.init_process_group(backend, timeout=PATIENCE)
    elif config.engine.name not in (EngineName.auto, EngineName.local):
        os.environ.setdefault("LOCAL_RANK", "0")  # ZeRO-3 needs it, and only torchrun sets it
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return device


def _check_shared(folder: Path, ranks: Ranks) -> None:
    """Checks that a folder is the same on all hosts: all ranks must find the file that the first one writes there.

    Raises:
        EnvironmentFault: on all ranks; names a host that has another folder, or cannot write there.
    """
    sign = folder / ranks.gather_objects(f".shared-{uuid.uuid4().hex}")[0]
    fault = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if ranks.first:
            sign.touch()
    except OSError as error:  # told to the other ranks, which would wait for this one otherwise
        fault = f"cannot write to {folder} on {socket.gethostname()}: {error.strerror}"
    faults = [one for one in ranks.gather_objects(fault) if one is not None]
    found = ranks.gather_objects((socket.gethostname(), os.path.isfile(sign)))
    if ranks.first and found[0][1]:
        sign.unlink()
    if faults:
        raise EnvironmentFault(f"{faults[0]}; try another output=FOLDER or cache=FOLDER")
    stranger = next((host for host, there in found if not there), None)
    if stranger is not None:
        raise EnvironmentFault(
            f"{folder} on {stranger} is not the folder of that name on {found[0][0]}: with engine.nodes, output= and "
            "cache= must be on a file system that all hosts share"
        )


def _made_by(rundir: RunDir, config: RunConfig, ranks: Ranks, device: torch.device) -> dict[str, Any]:
    """Describes code, engine, hardware and versions, which are recorded with each product though no key has them."""
    started = rundir.read_json(rundir.env_json) if rundir.env_json.is_file() else {}
    return {
        "erulab": erulab.__version__,
        "git": started.get("git"),
        "engine": asdict(config.engine),
        "processes": ranks.world,
        "device": str(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }


def _machine_fault(error: Exception, rundir: RunDir, config: RunConfig | None) -> ErulabError | None:
    """Returns a full disk, too little memory and the like as one line; None for any other error."""
    folders = [rundir.path] if config is None else [Path(config.cache), rundir.path]
    fault = faults.machine_fault(error, folders)
    if isinstance(fault, EnvironmentFault):
        return EnvironmentFault(f"{fault}; {faults.CONTINUES}")
    if fault is None or config is None:
        return fault
    stage = _stage_of(error)
    helping = options_that_help(config, stage, gpu=torch.cuda.is_available())
    where = f" in the stage {stage}" if stage else " before the first stage"
    try:
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        peak = f", which has held {peak_memory(device) / 1e9:.2f} GB"
    except EnvironmentFault:  # some systems do not tell
        peak = ""
    tried = f"try {', '.join(helping)}; " if helping else ""
    return OutOfMemory(f"out of memory{where}{peak}{faults.said_by_allocator(error)}; {tried}{faults.CONTINUES}")


def _stage_of(error: Exception) -> str:
    """Returns the stage that an error comes from, by the code that it passed through; "" before the first stage."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((stage for module, stage in STAGE_OF_MODULE.items() if module in modules), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
