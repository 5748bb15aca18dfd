"""One process of a run: reads RUN_DIR/run.yaml (typed, no Hydra), starts tracking, runs the pipeline."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
import sys
import traceback
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers

from erulab.config.compose import config_to_dict, load_config
from erulab.costs.ledger import Ledger
from erulab.data.base import Dataset
from erulab.errors import EnvironmentFault, ErulabError
from erulab.launching.folder_key import NOT_IN_GIVEN
from erulab.models.loading import chat_of
from erulab.options import EngineName, RunConfig, Stage
from erulab.pipeline import Pipeline
from erulab.ranks import Ranks
from erulab.registry import benchmarks, datasets, models
from erulab.reporting.console import final_table, show_config
from erulab.rundir import RunDir
from erulab.stages.cache import Cache
from erulab.stages.context import Context, Prepared
from erulab.stages.tracking import Tracker
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context
from erulab.training.stopping import StopRequest

log = logging.getLogger("erulab.worker")

# Another job of a sweep may be learning the same target for hours while this one waits at the lock.
PATIENCE = datetime.timedelta(hours=24)


def main(argv: list[str]) -> int:
    """Runs one rank of the run folder `argv[0]`; returns the exit code, which rank 0 or a failing rank also writes."""
    rundir = RunDir(Path(argv[0]))
    ranks = Ranks(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    _log_to(rundir.run_log if ranks.first else None)
    stop = StopRequest()
    stop.install()
    try:
        run(rundir, load_config(rundir.run_yaml), ranks, stop)
    except ErulabError as error:
        return _ended(rundir, ranks, error.code, str(error))
    except torch.OutOfMemoryError as error:
        hint = "try trainer.micro_batch=1, trainer.checkpointing=true or engine=zero2"
        return _ended(rundir, ranks, 75, f"out of memory: {str(error).splitlines()[0]}; {hint}")
    except Exception as error:
        traceback.print_exc()
        log.exception("failed")
        return _ended(rundir, ranks, 1, f"{type(error).__name__}: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return _ended(rundir, ranks, 0, "") if ranks.first else 0


def run(rundir: RunDir, config: RunConfig, ranks: Ranks, stop: StopRequest) -> None:
    """One rank's whole run.

    Raises:
        ErulabError: one line for the user, with an exit code.
    """
    device = _device(config, ranks)
    if config.engine.nodes > 1:
        for folder in (rundir.path, Path(config.cache)):
            _check_shared(folder, ranks)
    # Nothing draws from the global generator on purpose; fixed all the same for libraries that do.
    torch.manual_seed(config.seed)
    source = models.build(config.model)
    dataset = datasets.build(config.dataset)
    folder = Path(config.cache)
    rows = dataset.load(config.seed, folder)
    # Nothing may be known of a base model where none is needed; the model that is judged says what a row is.
    chat = chat_of(config.model.unlearned, source.frame) if config.learns_nothing else source.chat(rows)

    def prepared(plugin: Dataset, *, measured_only: bool = False) -> Prepared:
        whole = plugin.load(config.seed, folder)
        read = whole.measured_only() if measured_only else whole
        encoder = Encoder(chat, read.max_length, folder)
        return Prepared(
            whole, truncate_to_context(read, encoder, folder), plugin.identity(folder), encoder, config.evaluation
        )

    data = prepared(dataset, measured_only=config.learns_nothing and Stage.attack not in config.stages)
    others = [benchmarks.build(options) for options in config.benchmark.values()]
    beside = tuple(prepared(other, measured_only=True) for other in others)
    ledger = Ledger()
    cache = Cache(folder, ranks, _made_by(config, ranks, device), ledger, str(device))
    tracker = Tracker(rundir, config, ranks)
    context = Context(config, data, beside, source, cache, ledger, ranks, device, tracker, stop)
    try:
        if ranks.first:
            made = config_to_dict(config)
            # Where every model is given, nothing of the rest made one.
            left_out = NOT_IN_GIVEN if config.learns_nothing else ()
            show_config({key: value for key, value in made.items() if key not in left_out})
        Pipeline(context, rundir).run()
        if ranks.first:
            _show_results(rundir, config)
    finally:
        tracker.finish()


def _show_results(rundir: RunDir, config: RunConfig) -> None:
    """The closing table of a run that was evaluated or attacked, with where the report and the model are."""
    scores = rundir.read_json(rundir.scores_json) if rundir.scores_json.is_file() else {}
    attacks = rundir.read_json(rundir.attacks_json) if rundir.attacks_json.is_file() else []
    if not scores and not attacks:
        return
    files = [file for file in (rundir.report_html, rundir.report_md, rundir.model) if file.exists()]
    final_table(scores, attacks, files, config.benchmark, every=config.learns_nothing)


def _device(config: RunConfig, ranks: Ranks) -> torch.device:
    """This rank's device; joins the process group where there is more than one process, or DeepSpeed wants one."""
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    if ranks.world > 1:
        dist.init_process_group(backend, timeout=PATIENCE)
    elif config.engine.name not in (EngineName.auto, EngineName.local):
        os.environ.setdefault("LOCAL_RANK", "0")  # ZeRO-3 asks for it, and nobody sets it without torchrun
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return device


def _check_shared(folder: Path, ranks: Ranks) -> None:
    """Whether a folder is the same one on all hosts: what the first rank writes there, all others must find.

    Raises:
        EnvironmentFault: on all ranks, naming a host that has another folder, or cannot write there.
    """
    sign = folder / ranks.gather_objects(f".shared-{uuid.uuid4().hex}")[0]
    fault = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if ranks.first:
            sign.touch()
    except OSError as error:  # the others must hear of it: they would wait for this rank
        fault = f"cannot write to {folder} on {socket.gethostname()}: {error.strerror}"
    faults = [one for one in ranks.gather_objects(fault) if one is not None]
    found = ranks.gather_objects((socket.gethostname(), os.path.isfile(sign)))
    if ranks.first and found[0][1]:
        sign.unlink()
    if faults:
        raise EnvironmentFault(f"{faults[0]}; try another output=FOLDER or cache=FOLDER")
    without = next((host for host, there in found if not there), None)
    if without is not None:
        raise EnvironmentFault(
            f"{folder} on {without} is not the folder of that name on {found[0][0]}: with engine.nodes, output= and "
            "cache= must be on a file system that all hosts share"
        )


def _made_by(config: RunConfig, ranks: Ranks, device: torch.device) -> dict[str, Any]:
    return {
        "engine": asdict(config.engine),
        "processes": ranks.world,
        "device": str(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }


def _log_to(file: Path | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(logging.FileHandler(file))
    line = "%(asctime)s %(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=line, handlers=handlers, force=True)
    logging.getLogger("erulab").setLevel(logging.INFO if file is not None else logging.WARNING)
    handlers[0].setLevel(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _ended(rundir: RunDir, ranks: Ranks, code: int, message: str) -> int:
    """torchrun returns 1 whatever the code was: the real one goes into exit.json. The first fault is kept."""
    known = json.loads(rundir.exit_json.read_text()) if rundir.exit_json.exists() else None
    if known is None or known["code"] == 0:
        rundir.write_json(rundir.exit_json, {"code": code, "message": message, "rank": ranks.rank})
    if message:
        print(message, file=sys.stderr, flush=True)
        log.info("%s", message)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
