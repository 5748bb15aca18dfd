"""The runs that compare DeepSpeed with the local engine, for the test and for the ranks that run them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.options import EngineName, EngineOptions, Offload, OptimizerName, Precision
from erulab.ranks import Ranks
from erulab.training.checkpoints import Checkpoints
from erulab.training.engine import Engine
from erulab.training.engines import build_engine
from erulab.training.loop import train
from erulab.training.unlearning import UnlearningObjective
from tests.cases import Case
from tests.training.conftest import Unlearning

RFA = Case("eru", "elastic", "rfa", adversary_options={"n": 4, "warmup": 0.0, "every": 2})
PGD = Case("eru", "elastic", "latent_pgd", reward_options={"z": "batch"}, adversary_options={"steps": 2})
NPO = Case("npo", "reference")
KL = Case("kl")
SAM = Case("npo", "reference", "sam", adversary_options={"rho": 0.05})
GRU = Case("gd", trainer_options={"combine": "gru"})
RATIO = Case("npo", "reference", trainer_options={"retain_ratio": 2.0})
UNDIAL = Case("undial")
PDU = Case("pdu", method_options={"retain_weight": 2.0, "warmup": 0.2})
IDK_AP = Case("idk_ap")
RMU = Case("rmu", method_options={"layer": 1, "adaptive": True, "c": 3.0})
REROUTING = Case("circuit_breaker")
REPNOISE = Case("repnoise", method_options={"beta": 0.1})
STEPS, CUT = 6, 3
LOCAL = EngineOptions(EngineName.local)


@dataclass(frozen=True)
class Run:
    """One unlearning under ZeRO. A clip below the gradients' norm of about 1 takes effect in every step."""

    case: Case
    stage: int
    micro_batch: int = 4
    offload: Offload = Offload.none
    clip: float = 1.0
    checkpointing: bool = False
    lora: bool = False
    optimizer: OptimizerName = OptimizerName.adamw

    @property
    def name(self) -> str:
        extra = [word for word, on in (("checkpointing", self.checkpointing), ("lora", self.lora)) if on]
        extra += [self.optimizer.value] if self.optimizer is not OptimizerName.adamw else []
        offload = [self.offload.name] if self.offload is not Offload.none else []
        return "-".join([f"zero{self.stage}", *offload, self.case.name, f"{self.micro_batch}x{self.clip}", *extra])

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(EngineName[f"zero{self.stage}"], offload=self.offload)


RUNS = (
    *(Run(RFA, stage, micro_batch=2, clip=0.05) for stage in range(4)),
    *(Run(RFA, stage, micro_batch=2, clip=0.05, offload=Offload.cpu) for stage in (1, 2, 3)),
    *(Run(NPO, stage, lora=True) for stage in range(4)),
    Run(PGD, 2),
    Run(PGD, 3),
    Run(KL, 3),
    Run(RFA, 3, checkpointing=True),
    *(Run(SAM, stage) for stage in range(3)),
    *(Run(GRU, stage, micro_batch=2, clip=0.05) for stage in range(3)),
    Run(RATIO, 3, micro_batch=2),
    # An optimizer without state; one whose state only engines with whole weights keep.
    *(Run(RFA, stage, micro_batch=2, clip=0.05, optimizer=OptimizerName.sgd) for stage in (2, 3)),
    Run(RFA, 0, micro_batch=2, clip=0.05, optimizer=OptimizerName.adafactor),
    Run(UNDIAL, 3, micro_batch=2),
    Run(PDU, 2),
    Run(IDK_AP, 3, micro_batch=2),
    *(Run(RMU, stage, micro_batch=2) for stage in range(4)),
    Run(REROUTING, 3, micro_batch=2, checkpointing=True),
    Run(REPNOISE, 3, micro_batch=2),
)
# On four processes, with two rows each.
WIDE = (Run(RFA, 2, micro_batch=2), Run(PGD, 3, micro_batch=2))
# Cut after step 3 by two processes, and continued by one and two; some by four, which share two cores in the tests.
CUTS = tuple(run for run in RUNS if run.case is RFA and not run.checkpointing)
ZERO2 = CUTS[2]
GOES_ON = {1: CUTS, 2: CUTS, 4: CUTS[2:4]}


def train_part(
    run: Run,
    options: EngineOptions,
    world: Benchmark,
    loaded: LoadedModel,
    ranks: Ranks,
    folder: Path,
    first: int = 0,
    last: int = STEPS,
    checkpoints: Path | None = None,
) -> tuple[list[dict[str, float]], Engine, UnlearningObjective]:
    """Trains steps `first` to `last` of a run.

    Args:
        checkpoints: continued from if `first` is above 0, and written to if `last` is before the end.
    """
    unlearning = Unlearning(run.case, world, loaded, micro_batch=run.micro_batch, ranks=ranks)
    policy, objective, loop, subject = unlearning.build(folder)
    # A step of SGD is as long as the clipped gradient times the rate, not near the rate for each weight.
    loop = replace(loop, lr=1.0) if run.optimizer is OptimizerName.sgd else loop
    if run.checkpointing:
        subject.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        subject.model.train()
    if run.lora:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            adapters = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
            # In place: the objective's policy is the same modules.
            policy = Policy(cast(PreTrainedModel, get_peft_model(subject.model, adapters)))
    engine = build_engine(
        policy, options, ranks, weight_decay=0.01, clip=run.clip, precision=Precision.fp32, optimizer=run.optimizer
    )
    kept = Checkpoints(checkpoints, {}, ranks) if checkpoints is not None else None
    curve = []
    for step, values in train(engine, objective, loop, ranks, kept if first else None):
        assert step >= first
        curve.append(values)
        if step + 1 == last < STEPS:
            assert kept is not None
            kept.save(last, engine, objective)
            break
    return curve, engine, objective
