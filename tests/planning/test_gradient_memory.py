"""Peak memory of steps that take the gradients of forget and retain rows apart, against torch's allocator."""

from __future__ import annotations

import pytest
from torch.profiler import ProfilerActivity, profile

from erulab import registry
from erulab.config.compose import compose_config
from erulab.costs.shapes import ModelShape
from erulab.models.policy import Policy
from erulab.options import EngineName, EngineOptions, Precision
from erulab.planning import training
from erulab.ranks import Ranks
from erulab.training.assembly import build_objective
from erulab.training.local import LocalEngine
from erulab.training.unlearning import References
from erulab.training.unlearning_batches import UnlearningRows
from tests.costs.families import model_of
from tests.costs.test_memory import llama
from tests.planning.test_training import GLOBAL_BATCH, PROMPT, RESPONSE, SIZES
from tests.samples.tiny import encoded

registry.load_plugins()
CONFIG = llama(width=384, mlp=1024, layers=4, heads=8, kv_heads=8, vocabulary=1000, tied=False)


@pytest.mark.parametrize(
    ("typed", "steps"),
    [
        ("trainer.combine=pcgrad", 1),
        ("trainer.combine=blur", 1),
        ("trainer.combine=gru", 2),  # the average stays from the first step
        ("trainer.combine=pcgrad trainer.micro_batch=2", 1),
        ("adversary=sam", 1),
        ("adversary=sam method.retain=none", 1),
        ("adversary=sam trainer.combine=gru", 2),
        ("adversary=relearning adversary.steps=4 adversary.every=2", 1),
        ("adversary=relearning adversary.steps=3 adversary.every=1 adversary.optimizer=sgd", 1),
    ],
)
def test_peak_where_gradients_are_taken_apart(typed: str, steps: int) -> None:
    config = compose_config(["method=gd", *typed.split(), f"trainer.global_batch={GLOBAL_BATCH}"])
    shape = ModelShape.from_config(CONFIG)
    engine_options = EngineOptions(EngineName.local, 1)
    made = training.training_memory(config, engine_options, shape, SIZES, False, pages=False)["unlearning"]
    policy = Policy(model_of(CONFIG))
    rows = [[encoded(f"{kind}{i}", PROMPT, RESPONSE) for i in range(4)] for kind in "fr"]
    rows_of_run = UnlearningRows(rows[0], (), rows[1])
    objective = build_objective(config, rows_of_run, policy, References(), pad_id=0, ranks=Ranks())
    engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for step in range(steps):
            objective.start_step(step, steps)
            objective.accumulate(engine, objective.micro_batches(step))
            policy.zero_grad(set_to_none=True)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    held = made.weights + made.optimizer
    assert made.peak - held == pytest.approx(highest, rel=0.06)
