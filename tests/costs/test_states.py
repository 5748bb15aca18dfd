"""Bytes of optimizer states and 4-bit weights against what the libraries hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile

from erulab.costs.memory import estimate_memory
from erulab.costs.setup import MicroBatch, NumberFormat, Sharding, TrainingSetup
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape
from erulab.costs.states import state_bytes, trained_matrices, update_bytes
from erulab.costs.trained import weight_shapes
from erulab.models.loaded import LoadedModel
from erulab.models.lora import with_lora
from erulab.models.policy import Policy
from erulab.options import OptimizerName
from erulab.training.optimizers import build_optimizer
from tests.costs.families import CONFIGS, batch_of, model_of
from tests.costs.test_memory import llama, saved_bytes

NEEDS_BITSANDBYTES = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
every_optimizer = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=NEEDS_BITSANDBYTES if name.in_8_bits else ()) for name in OptimizerName],
    ids=lambda name: name.value,
)
LARGE = llama(256, 704, 4, 8, 4, 2000, False)
MICRO = MicroBatch(2, 16, 8)


def updated(name: OptimizerName, config: dict[str, Any], adapters: Adapters) -> tuple[Policy, torch.optim.Optimizer]:
    model: Any = model_of(config)
    if adapters.rank:
        loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
        model = with_lora(loaded, rank=adapters.rank, alpha=16, seed=0).model
    policy = Policy(model)
    optimizer = build_optimizer(name, policy, 0.01)
    policy.row_nll(batch_of([16, 15], 8)).sum().backward()
    optimizer.step()
    return policy, optimizer


@pytest.mark.parametrize("adapters", [NO_ADAPTERS, Adapters(16)], ids=["all weights", "adapters"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "qwen3_5"])
@every_optimizer
def test_state_of_an_optimizer(name: OptimizerName, family: str, adapters: Adapters) -> None:
    """Counted are the tensors of all parameters' states, without scalars and the tables that all of them share."""
    config = LARGE if family == "llama" else CONFIGS[family]
    _, optimizer = updated(name, config, adapters)
    held = sum(
        value.nbytes
        for state in optimizer.state.values()
        for kind, value in state.items()
        if isinstance(value, torch.Tensor) and value.dim() and not kind.startswith("qmap")
    )
    shape = ModelShape.from_config(config)
    trained = shape.adapter_parameters(adapters) if adapters.rank else shape.parameters
    assert state_bytes(name, trained_matrices(weight_shapes(shape, adapters).values()), trained) == held


def test_bytes_per_parameter() -> None:
    """The closed forms that the page states, for one large matrix."""
    shape = ModelShape.from_config(LARGE)
    n, setup = shape.parameters, TrainingSetup()
    assert estimate_memory(shape, MICRO, setup).optimizer == 8 * n

    def bytes_of(name: OptimizerName) -> float:
        return estimate_memory(shape, MICRO, TrainingSetup(optimizer=name)).optimizer / n

    assert bytes_of(OptimizerName.adamw_8bit) == pytest.approx(2 * (1 + 4 / 256), rel=0.01)
    assert bytes_of(OptimizerName.adafactor) < 0.1
    assert bytes_of(OptimizerName.sgd) == 0
    assert bytes_of(OptimizerName.paged_adamw_8bit) == 0
    paged = TrainingSetup(optimizer=OptimizerName.paged_adamw_8bit, pages=False)
    assert estimate_memory(shape, MICRO, paged).optimizer / n == bytes_of(OptimizerName.adamw_8bit)
    # Sharded SGD keeps a float32 master and no moments.
    sharded = TrainingSetup(NumberFormat.bf16, Sharding(2, 4), optimizer=OptimizerName.sgd)
    assert estimate_memory(shape, MICRO, sharded).optimizer == 4 * n / 4


def test_adafactor_takes_three_tensors_for_an_update() -> None:
    policy, optimizer = updated(OptimizerName.adafactor, LARGE, NO_ADAPTERS)
    policy.row_nll(batch_of([16, 15], 8)).sum().backward()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        optimizer.step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    made = update_bytes(
        OptimizerName.adafactor, trained_matrices(weight_shapes(ModelShape.from_config(LARGE), NO_ADAPTERS).values())
    )
    assert made == 8 * 2000 * 256 + 4 * 704 * 256
    assert made == pytest.approx(highest, rel=0.01)


def test_adafactor_where_one_kind_of_matrix_is_trained() -> None:
    """rmu trains alone the output matrices of some MLPs: the matrix before is of the same kind, or there is none."""
    one, three = ([*trained_matrices([(64, 32)] * count)] for count in (1, 3))
    assert update_bytes(OptimizerName.adafactor, one) == 8 * 64 * 32
    assert update_bytes(OptimizerName.adafactor, three) == (8 + 4) * 64 * 32


@NEEDS_BITSANDBYTES
@pytest.mark.parametrize("numbers", [NumberFormat.fp32, NumberFormat.autocast])
def test_weights_and_activations_over_4_bits(numbers: NumberFormat, tmp_path: Path) -> None:
    found, predicted = [], []
    for layers in (2, 4):
        config = llama(512, 1408, layers, 8, 4, 400, False)
        model = _in_4_bits(config, numbers, tmp_path / str(layers))
        held = sum(p.nbytes for p in model.parameters())
        for p in model.parameters():
            state = getattr(p, "quant_state", None)
            if state is not None:
                held += state.absmax.nbytes + state.state2.absmax.nbytes
        adapters = Adapters(4)
        shape = ModelShape.from_config(config)
        made = estimate_memory(shape, MicroBatch(4, 22, 32), TrainingSetup(numbers, adapters=adapters, quantized=True))
        casts = 2 * shape.head_weights if numbers is NumberFormat.autocast else 0
        assert made.weights - casts - 4 * shape.adapter_parameters(adapters) == pytest.approx(held, rel=1e-3)
        adapted: Any = get_peft_model(
            model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"), autocast_adapter_dtype=False
        )
        found.append(saved_bytes(Policy(adapted), [22, 21, 22, 21], 8, numbers))
        predicted.append(made.activations)
    exact = numbers is NumberFormat.fp32  # otherwise adapters are cast too
    assert predicted[1] - predicted[0] == pytest.approx(found[1] - found[0], rel=0.01 if exact else 0.1)


def _in_4_bits(config: dict[str, Any], numbers: NumberFormat, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model_of(config).save_pretrained(folder)
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if numbers is NumberFormat.fp32 else torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", quantization_config=how
    ).train()
