"""The FLOPs of an unlearning step against torch's counter on the real objective and loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erulab import registry
from erulab.config.compose import compose_config
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import ModelShape
from erulab.costs.steps import step_flops
from erulab.methods.needs import ForgetTokens
from erulab.methods.retain import Retain
from erulab.models.loaded import LoadedModel
from erulab.models.lora import WithoutAdapters, with_lora
from erulab.models.policy import Policy
from erulab.options import Precision, Schedule
from erulab.planning import training
from erulab.planning.micro import RowGroup, expected_micro_batches, unlearning_split
from erulab.planning.quantiles import Quantiles
from erulab.planning.rows import DataSizes, RowLengths
from erulab.ranks import Ranks
from erulab.registry import methods
from erulab.training import unlearning_batches
from erulab.training.assembly import build_objective, freeze_untrained
from erulab.training.local import LocalEngine
from erulab.training.loop import LoopOptions, train
from erulab.training.reference import ReferenceTable
from erulab.training.unlearning import References, compares_with_frozen_model
from erulab.training.unlearning_batches import UnlearningRows
from tests.costs.families import CONFIGS, model_of
from tests.planning.probes import ENTRY, Asks, ProbeOptions, Trains
from tests.samples.tiny import answered, encoded

registry.load_plugins()
PROMPT, RESPONSE, OTHER, GLOBAL_BATCH = 9, 5, 3, 4
STEPS = 10  # a multiple of GAIN_EVERY and of rfa's `every` below
SHAPE = ModelShape.from_config(CONFIGS["llama"])


def part(response: int) -> RowLengths:
    """Rows of one length."""
    length = PROMPT + response
    return RowLengths(4, length, response, response, Quantiles.constant(length), Quantiles.constant(PROMPT))


SIZES = DataSizes(part(RESPONSE), part(RESPONSE), part(OTHER), part(OTHER), 8, 4, "equal rows")
SPAN = 2  # tokens of a span, where spans are forgotten


def measured(config: Any, steps: int = STEPS) -> tuple[float, float]:
    """Returns the mean FLOPs of an unlearning step of this config: by torch's counter, and by the run's ledger."""
    forget = [encoded(f"f{i}", PROMPT, RESPONSE) for i in range(4)]
    if config.method.forget_tokens is ForgetTokens.span:
        forget = [dataclasses.replace(row, supervised=(row.start, row.start + SPAN)) for row in forget]
    others = [answered(row, f"o{row.row_id}", OTHER) for row in forget]
    retain = [encoded(f"r{i}", PROMPT, RESPONSE) for i in range(4)]
    model = model_of(CONFIGS["llama"], "eager")
    if config.trainer.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ledger, lora = Ledger(), config.model.lora
    if lora.rank:
        plain = LoadedModel(model, None, None)  # type: ignore[arg-type]
        model = with_lora(plain, rank=lora.rank, alpha=8, targets=lora.targets, seed=0).model
    policy = Policy(model, ledger, lora.adapters)
    method = methods.build(config.method)
    frozen: Any = None
    if compares_with_frozen_model(method) and lora.rank:
        frozen = WithoutAdapters(policy)
    elif compares_with_frozen_model(method):
        frozen = Policy(model_of(CONFIGS["llama"], "eager"), ledger).requires_grad_(False)
    freeze_untrained(policy, method)
    table = ReferenceTable(torch.ones(4).double(), torch.ones(4).double()) if method.needs.reward else None
    references = References(table, frozen)
    refused = [answered(row, f"o{row.row_id}", OTHER) for row in retain]
    rows = UnlearningRows(forget, others, retain, refused)
    objective = build_objective(config, rows, policy, references, pad_id=0, ranks=Ranks())
    engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    loop = LoopOptions(1e-4, steps, 0.0, Schedule.constant, GLOBAL_BATCH)
    with FlopCounterMode(display=False) as counter:
        for _ in train(engine, objective, loop, Ranks()):
            pass
    return counter.get_total_flops() / steps, ledger.take().plain()["flops"] / steps


@pytest.mark.parametrize(
    "typed",
    [
        "method=ga",
        "method=kl",
        "method=idk",
        "method=simnpo method.forget_tokens=span",
        "method=eru adversary=latent_pgd adversary.steps=2 method.forget_tokens=span",
        "method=npo trainer.micro_batch=2",
        "method=npo trainer.micro_tokens=30",
        "method=dpo trainer.micro_tokens=30",
        "method=npo trainer.checkpointing=true",
        "method=npo model.lora.rank=4",
        "method=npo model.lora.rank=4 trainer.checkpointing=true",
        "method=npo model.lora.rank=4 model.lora.targets=[q_proj,v_proj]",
        "method=npo model.lora.rank=4 model.lora.targets=[q_proj,v_proj] trainer.checkpointing=true",
        "method=kl model.lora.rank=4",
        "method=eru adversary=latent_pgd adversary.steps=2 model.lora.rank=4",
        "method=dpo",
        "method=eru adversary=noise",
        "method=eru adversary.n=3 adversary.every=2 adversary.warmup=0",
        "method=eru adversary.n=3 adversary.every=2 adversary.warmup=0 adversary.direction=policy_minus_target",
        "method=eru adversary=latent_pgd adversary.steps=2",
        "method=eru adversary=latent_pgd adversary.steps=2 adversary.layer=2 trainer.checkpointing=true",
    ],
)
def test_a_step_costs_what_torch_counts(typed: str) -> None:
    config = compose_config([*typed.split(), f"trainer.global_batch={GLOBAL_BATCH}"])
    sizes = SIZES
    if config.method.forget_tokens is ForgetTokens.span:
        sizes = dataclasses.replace(SIZES, forget=dataclasses.replace(SIZES.forget, supervised=SPAN))
    step = training.unlearning_step(config, sizes, SHAPE.layers, 1)
    predicted = step_flops(SHAPE, step, training.unlearning_gradients(config, SHAPE))
    # policy_minus_target runs its prompts once more, before the first step; otherwise they are equal.
    counted, in_ledger = measured(config)
    assert in_ledger == pytest.approx(counted, rel=1e-9)
    assert predicted.total == pytest.approx(counted, rel=0.05 if "target" in typed else 1e-9)
    assert (predicted.adversary > 0) is ("adversary" in typed or "eru" in typed)


@pytest.mark.parametrize(
    "typed",
    [
        "method=rmu",
        "method=rmu method.retain=nll trainer.checkpointing=true",
        "method=rmu method.adaptive=true model.lora.rank=4",
        "method=circuit_breaker model.lora.rank=4",
        "method=repnoise",
        "method=undial",
        "method=wga adversary=sam",
        "method=ceu method.retain=nll trainer.combine=pcgrad",
        "method=jensun",
        "method=idk_ap",
        "method=flat",
        "method=pdu",
        "method=tar adversary.steps=4 adversary.every=2",
    ],
)
def test_a_step_of_every_kind_of_method(typed: str) -> None:
    config = compose_config([*typed.split(), f"trainer.global_batch={GLOBAL_BATCH}"])
    step = training.unlearning_step(config, SIZES, SHAPE.layers, 1)
    predicted = step_flops(SHAPE, step, training.unlearning_gradients(config, SHAPE))
    counted, in_ledger = measured(config, 2)
    # The products of repnoise's kernel are its loss's own; they matter on tiny models.
    assert in_ledger == pytest.approx(counted, rel=0.02 if "repnoise" in typed else 1e-9)
    assert predicted.total == pytest.approx(in_ledger, rel=1e-9)


@pytest.mark.parametrize(
    ("asks", "typed"),
    [
        (ProbeOptions(asks=Asks.states, retain=Retain.states, trained=Trains.down), ""),
        (ProbeOptions(asks=Asks.states, retain=Retain.states, trained=Trains.down), "trainer.checkpointing=true"),
        (ProbeOptions(asks=Asks.states, retain=Retain.states, trained=Trains.down), "model.lora.rank=4"),
        (ProbeOptions(asks=Asks.states, retain=Retain.nll, trained=Trains.down), ""),
        (ProbeOptions(asks=Asks.states, retain=Retain.none, trained=Trains.all, read=(3,)), ""),
        (ProbeOptions(asks=Asks.compared_states, retain=Retain.states, trained=Trains.below, read=(1, 2)), ""),
        (
            ProbeOptions(asks=Asks.compared_states, retain=Retain.kl, trained=Trains.below),
            "model.lora.rank=4 trainer.checkpointing=true",
        ),
        (ProbeOptions(asks=Asks.compared_states, retain=Retain.js, trained=Trains.below), "model.lora.rank=4"),
        (ProbeOptions(asks=Asks.compared_values), ""),
        (ProbeOptions(asks=Asks.compared_values, trained=Trains.above), "trainer.checkpointing=true"),
        (ProbeOptions(asks=Asks.values, retain=Retain.states), "model.lora.rank=4 model.lora.targets=[q_proj,v_proj]"),
        (ProbeOptions(asks=Asks.nll_and_values, retain=Retain.js), "trainer.micro_tokens=30"),
        (ProbeOptions(asks=Asks.lens, read=(1, 2, 3)), ""),
        (ProbeOptions(asks=Asks.lens, retain=Retain.none, read=(0, 1)), "model.lora.rank=4"),
        (ProbeOptions(asks=Asks.pairs, retain=Retain.kl), ""),
        (ProbeOptions(asks=Asks.values, refusals=True), "trainer.retain_ratio=2"),
        (ProbeOptions(asks=Asks.values), "trainer.combine=pcgrad"),
        (ProbeOptions(asks=Asks.values), "trainer.combine=gru trainer.micro_batch=2 trainer.retain_ratio=2"),
        (ProbeOptions(asks=Asks.nll_and_values, retain=Retain.kl), "adversary=sam trainer.combine=blur"),
        (ProbeOptions(asks=Asks.states, retain=Retain.nll, trained=Trains.down), "adversary=sam"),
        (ProbeOptions(asks=Asks.values, retain=Retain.none), "adversary=sam adversary.rho=0 model.lora.rank=4"),
        (ProbeOptions(asks=Asks.values), "adversary=latent_pgd adversary.steps=2 trainer.combine=pcgrad"),
    ],
)
def test_a_step_costs_what_the_method_asks_for(asks: ProbeOptions, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where forwards end early, only some weights are trained, and gradients are taken apart."""
    monkeypatch.setitem(methods._entries, "probe", ENTRY)
    config = compose_config(["method=gd", *typed.split(), f"trainer.global_batch={GLOBAL_BATCH}"])
    config = dataclasses.replace(config, method=asks)
    predicted = step_flops(
        SHAPE, training.unlearning_step(config, SIZES, SHAPE.layers, 1), training.unlearning_gradients(config, SHAPE)
    )
    # latent_pgd does not do the same in each step.
    counted, in_ledger = measured(config, STEPS if "latent_pgd" in typed else 2)
    # kl reads the NLL of retain rows for a metric: where no loss of the same forward reads NLL, it has no backward.
    exact = asks.retain is not Retain.kl
    assert in_ledger == pytest.approx(counted, rel=1e-9 if exact else 0.01)
    assert predicted.total == pytest.approx(in_ledger, rel=1e-9)
    assert (predicted.adversary > 0) is (
        "latent_pgd" in typed or typed.startswith("adversary=sam") and "rho=0" not in typed
    )


def test_a_gain_is_measured_as_often_as_training_does() -> None:
    assert training.GAIN_EVERY == unlearning_batches.GAIN_EVERY


def of_many_lengths(part: RowLengths) -> RowLengths:
    """The same rows, of lengths from 4 to 14."""
    return dataclasses.replace(part, lengths=Quantiles.of(range(4, 15)))


def test_a_budget_of_tokens_is_kept_with_padding_on_every_process() -> None:
    groups = [
        RowGroup((of_many_lengths(SIZES.forget), of_many_lengths(SIZES.paired)), 24),
        RowGroup((of_many_lengths(SIZES.retain),), 24),
    ]
    config = compose_config(["method=dpo", "trainer.micro_tokens=64"])
    cut = expected_micro_batches(groups, unlearning_split(config), 2)
    assert len(cut) == 2 and len(cut[0]) == len(cut[1]) > 5
    assert max(micro.rows.tokens for mine in cut for micro in mine) <= 64
    for group in (0, 1):
        assert sum(micro.counts[group] for mine in cut for micro in mine) == 24
    assert sum(micro.rows.count for mine in cut for micro in mine) == 3 * 24
    # Where not even one row of each fits, one row of each runs.
    tight = compose_config(["method=dpo", "trainer.micro_tokens=10"])
    cut = expected_micro_batches(groups, unlearning_split(tight), 2)
    assert {micro.counts for mine in cut for micro in mine} == {(1, 1)}


def test_prompts_of_rfa_are_run_by_every_process() -> None:
    config = compose_config(["method=eru", "trainer.global_batch=8"])
    one, four = (training.unlearning_step(config, SIZES, 4, processes) for processes in (1, 4))
    assert four.prompts == one.prompts.times(4)
    assert four.passes == one.passes
    # 2 x 32 prompts every 4 steps, none in the first tenth.
    assert one.prompts.count == pytest.approx(2 * 32 / 4 * 0.9)
    assert dataclasses.replace(four, prompts=one.prompts) == one
