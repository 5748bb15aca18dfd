"""The check, before a model is loaded, that the disk of the cache has room for what the run's trainings write."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from erulab.costs.disk import TrainingFiles, bytes_at_most, most_checkpoints
from erulab.costs.shapes import ModelShape
from erulab.costs.trained import weight_shapes
from erulab.errors import EnvironmentFault, ErulabError
from erulab.faults import free_bytes
from erulab.methods.base import StandIn, gradient_method
from erulab.options import EngineName, OptimizerName
from erulab.registry import methods
from erulab.stages import learn, unlearn
from erulab.stages.context import Context
from erulab.training.batches import total_steps
from erulab.training.checkpoints import KEEP
from erulab.training.engine import runs_in_bf16
from erulab.training.loader import ModelRef

WHOLE = 4  # bytes of a float32 weight
HALF = 2
MOMENTS = 8  # bytes of both moments of AdamW per weight


def check_space(context: Context) -> None:
    """Refuses a run whose models and checkpoints certainly do not fit on the disk of the cache.

    What is small beside them (rows, scores, references) is not counted, and neither are the models that a method makes
    on the way. Where the model's sizes are unknown, nothing is refused. All ranks must call it.

    Raises:
        EnvironmentFault: on all ranks, with both numbers.
    """
    free = context.ranks.gather_objects(free_bytes(Path(context.config.cache)))[0]
    try:
        shape = ModelShape.from_config(context.source.architecture(context.data.raw))
        if bytes_at_most(_trainings(context, shape, every=True)) <= free:
            return
        missing = _trainings(context, shape, every=False)  # reads keys, so only where it matters
    except ErulabError:  # sizes or rows that the stages will speak about
        return
    # Checkpoints of a training that is continued are replaced.
    unfinished = _bytes_of_unfinished(Path(context.config.cache)) if context.ranks.first else 0
    needed = bytes_at_most(missing) - context.ranks.gather_objects(unfinished)[0]
    if needed > free:
        less = ""
        if any(one.checkpoints for one in missing):
            less = ", or type trainer.save_every=null (a checkpoint only when the run is stopped)"
        raise EnvironmentFault(
            f"{context.config.cache} needs {needed / 1e9:.3g} GB for {len(missing)} models and their checkpoints, and "
            f"{free / 1e9:.3g} GB are free there; make room, name another disk with cache=FOLDER{less}"
        )


def bytes_to_write(context: Context) -> float | None:
    """Returns the most bytes that the run's trainings will hold in the cache, without those that are there already.

    As `check_space` counts them; None where the model's sizes or its rows are not known.
    """
    try:
        shape = ModelShape.from_config(context.source.architecture(context.data.raw))
        return bytes_at_most(_trainings(context, shape, every=False))
    except ErulabError:
        return None


def _trainings(context: Context, shape: ModelShape, *, every: bool) -> list[TrainingFiles]:
    """Lists the trainings of the run, or only those whose models the cache does not have."""
    config, found = context.config, []
    refs: dict[str, ModelRef] = {}
    for stage, roles in (("target", ["target"]), ("oracle", config.oracles)):
        given = config.model.target if stage == "target" else config.model.oracle
        for role in roles:
            if given is not None:
                if not every:
                    refs[role] = context.loader.given(given if stage == "target" else config.model.oracles[0])
                continue
            product = None if every else learn.find_learned(context, role)
            if product is not None:
                refs[role] = product.model
            elif stage in {one.value for one in config.models_to_learn}:
                options = config.target
                steps = total_steps(len(learn.learned_rows(context, role)), options.epochs, options.global_batch)
                found.append(_files(context, shape, steps, (WHOLE + MOMENTS) * shape.parameters))
    requests = context.benchmark.requests
    count = len(requests) or 1
    if not context.unlearns or isinstance(methods.build(config.method), StandIn):
        return found
    if "target" in refs:
        count -= len(unlearn.find_unlearned(context, refs["target"], refs.get("oracle")))
    elif not every and any((Path(config.cache) / unlearn.KIND).glob("*/entry.json")):
        return found  # one of these may be of the target that is to be learned
    trainer = config.trainer
    rows = requests[-1].forget if requests else context.benchmark.forget
    steps = total_steps(len(rows), trainer.epochs, trainer.global_batch, trainer.steps)
    method = gradient_method(config.method)
    trained = 0
    if method is not None:
        shapes = weight_shapes(shape, config.model.lora.adapters)
        trained = sum(math.prod(sizes) for name, sizes in shapes.items() if method.trains(name, shape.layers))
    state = trained * (WHOLE + MOMENTS * (trainer.optimizer is OptimizerName.adamw))
    return found + [_files(context, shape, steps, state)] * count


def _files(context: Context, shape: ModelShape, steps: int, state: int) -> TrainingFiles:
    """Returns the files of one training; `state`: bytes of one checkpoint."""
    config = context.config
    sharded = config.engine.name in (EngineName.zero1, EngineName.zero2, EngineName.zero3)
    number = HALF if sharded and runs_in_bf16(config.trainer.precision, context.device) else WHOLE
    count = most_checkpoints(steps, config.trainer.save_every, KEEP)
    return TrainingFiles(number * shape.parameters, state, count)


def _bytes_of_unfinished(cache: Path) -> int:
    folders = [folder for kind in (learn.KIND, unlearn.KIND) for folder in (cache / kind).glob("*.partial")]
    total = 0
    for file in (file for folder in folders for file in folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # another run may finish its product meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total
