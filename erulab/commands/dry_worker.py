"""The process behind `--dry-run`: reads the rows of each job as a worker does, and prints what the job would make.

Started by `erulab.launching.dry_run`; it loads no model, writes into no run folder, and starts no tracker.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
import transformers

from erulab.commands.arguments import ended_with_line
from erulab.config.compose import load_config
from erulab.costs.devices import Device, find_device
from erulab.errors import ErulabError
from erulab.faults import free_bytes
from erulab.options import RunConfig, TrackerName
from erulab.planning.estimate import Plan, estimate
from erulab.planning.rows import Overrides
from erulab.ranks import Ranks
from erulab.redaction import print_exception, redacted_text
from erulab.reporting.escape import visible
from erulab.reporting.numbers import duration, size
from erulab.rundir import RunDir
from erulab.stages.checks import notes_on_few_steps, run_stage_checks
from erulab.stages.context import Context
from erulab.stages.dry_run import DryRun, PlannedProduct
from erulab.stages.space import bytes_to_write, check_space
from erulab.training.stopping import StopRequest
from erulab.worker import build_context

FIELDS = 4  # arguments of each job


def main(arguments: list[str]) -> int:
    """Prints what the jobs would make; returns the first exit code that is not 0, or 0."""
    codes, learned = [], set[str]()
    for start in range(0, len(arguments), FIELDS):
        config, rundir, finished, title = arguments[start : start + FIELDS]
        if title:
            print(f"{visible(title)}", flush=True)
        show = functools.partial(_show_job, Path(config), RunDir(Path(rundir)), learned, finished=bool(finished))
        codes.append(ended_with_line(show))
        sys.stderr.flush()
    print("nothing was started; leave out --dry-run to run it", flush=True)
    return next((code for code in codes if code), 0)


def _show_job(folder: Path, rundir: RunDir, learned: set[str], *, finished: bool) -> int:
    """Prints what one job would make; returns 0.

    Args:
        folder: holds its run.yaml.
        rundir: its run folder, in which nothing is written.
        learned: keys of the models that jobs before it learn; those of this one are added.
        finished: whether its folder holds all that it would make.
    Raises:
        ErulabError: the line that the run would end with.
    """
    config = load_config(RunDir(folder).run_yaml)
    config.tracker = dataclasses.replace(config.tracker, name=TrackerName.none)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    context = build_context(RunDir(folder), config, Ranks(), device, StopRequest())
    run_stage_checks(context)
    check_space(context)
    products = DryRun(context).products()
    lines = [
        f"run folder  {rundir.path} ({_folder_in_words(rundir, finished)})",
        "",
        *_product_lines(products, learned),
        "",
    ]
    lines += _memory_lines(config, device)
    lines += _disk_lines(context)
    lines += [f"note        {note}" for note in (*context.benchmark.notes, *notes_on_few_steps(context))]
    print(redacted_text("\n".join([*(visible(line) for line in lines), ""])), flush=True)
    return 0


def _folder_in_words(rundir: RunDir, finished: bool) -> str:
    if finished:
        return "finished before: the command would only show it"
    return "new" if not rundir.run_yaml.is_file() else "there already: the run continues in it"


def _product_lines(products: list[PlannedProduct], learned: set[str]) -> Iterator[str]:
    width = max((len(one.what) for one in products), default=0)
    for one in products:
        if one.needed > 1:
            state = f"{one.found} of {one.needed} in the cache"
        else:
            missing = "made by a job above" if one.key in learned else "to be made"
            state = "" if not one.needed else "in the cache" if one.found else missing
        took = f"made in {duration(one.seconds)}" if one.seconds is not None else ""
        learned |= {one.key} if one.key else set()
        yield "  ".join(part for part in (f"{one.stage:<10}", one.what.ljust(width), state, one.detail, took) if part)


def _memory_lines(config: RunConfig, device: torch.device) -> Iterator[str]:
    """Yields the estimate of each training beside what this machine has."""
    try:
        plan: Plan = estimate(config, _this_machine(device), 1.0, Overrides())
    except ErulabError as error:
        yield f"memory      not known: {error}"
        return
    needs = [f"{name} {size(memory.peak)}" for name, memory in plan.memory.items()]
    if plan.scoring:
        needs.append(f"scoring at least {size(plan.scoring)}")
    free = "" if not plan.device.shared else f", {size(psutil.virtual_memory().available)} of it free now"
    fits = "fits" if max(plan.scoring, *(m.peak for m in plan.memory.values()), 0.0) <= plan.available else "TOO LITTLE"
    yield (
        f"memory      per process about {', '.join(needs) or 'nothing to train'}; "
        f"this {plan.device.name} has {size(plan.device.memory)}{free}: {fits}"
    )


def _this_machine(device: torch.device) -> Device:
    """Returns this machine's GPU with its memory, or its CPU. Its peaks are not known and not used."""
    if device.type == "cpu":
        return find_device("cpu")
    found = torch.cuda.get_device_properties(device)
    bf16 = 1.0 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return Device(found.name, float(found.total_memory), bf16, 1.0)


def _disk_lines(context: Context) -> Iterator[str]:
    needed = bytes_to_write(context)
    free = size(free_bytes(Path(context.config.cache)))
    wanted = "not known" if needed is None else f"about {size(needed)} of models and checkpoints"
    yield f"disk        {wanted}; {free} are free at {context.config.cache}"


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # products that are damaged are shown as missing
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    sys.excepthook = print_exception
    sys.exit(main(sys.argv[1:]))
