"""FLOPs against torch's own counter, operation by operation.

With eager attention both count the same products, so they are equal. With sdpa the counter sees only the linear layers:
it has no entry for the kernel that the CPU takes. Recurrent layers are equal in forwards, if rows are whole chunks; in
backwards torch leaves out the gradients of a row's first and last states. Convolutions are not counted here: torch's
counter takes the gradient of a depthwise one for that of a full one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from erulab.adversaries.hooks import edit_states, module_at_layer
from erulab.costs import flops
from erulab.costs.flops import Backward, TokenCounts
from erulab.costs.shapes import Adapters, ModelShape
from erulab.models.loaded import LoadedModel
from erulab.models.lora import with_lora
from erulab.models.policy import Policy
from tests.costs.families import CONFIGS, batch_of, model_of

LENGTHS, SUPERVISED = [24, 22, 20], 8
BATCH = batch_of(LENGTHS, SUPERVISED)
ROWS = TokenCounts.of([24, 24, 24], 24)  # padding is computed too


# Families whose costs do not depend on chunks of positions.
EXACT = [name for name in CONFIGS if name != "qwen3_5"]
CHUNKS = batch_of([512, 512], 8)
CHUNK_ROWS = TokenCounts.of([512, 512], 16)


def counted(run: Callable[[], Any]) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        result = run()
    by_operation = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in by_operation.items() if "convolution" not in str(operation)), result


def with_adapters(model: PreTrainedModel, targets: tuple[str, ...] = ()) -> Any:
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    return with_lora(loaded, rank=4, alpha=8, seed=0, targets=targets or None).model


@pytest.mark.parametrize("name", EXACT)
def test_forward_and_full_backward(name: str) -> None:
    policy, shape = Policy(model_of(CONFIGS[name], "eager")), ModelShape.from_config(CONFIGS[name])
    ahead, (nll, _) = counted(lambda: policy(BATCH))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, ROWS) == ahead
    assert flops.backward(shape, ROWS, Backward.full) == back


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama", ()),
        ("phi", ()),
        ("phi3", ()),
        ("gpt2", ()),
        ("llama", ("q_proj", "v_proj")),
        ("llama", ("k_proj",)),
        ("llama", ("v_proj",)),
        ("llama", ("o_proj",)),
        ("llama", ("up_proj",)),
        ("llama", ("down_proj",)),
        ("phi", ("q_proj", "v_proj")),
        ("phi", ("fc1",)),
        ("phi", ("dense", "fc2")),
        ("phi3", ("qkv_proj",)),
        ("gpt2", ("c_proj",)),
        ("gemma2", ()),
        ("gemma3", ("v_proj",)),
        ("mixtral", ()),
        ("qwen3_moe", ()),
        ("olmoe", ("k_proj",)),
    ],
)
def test_adapters(name: str, targets: tuple[str, ...]) -> None:
    shape = ModelShape.from_config(CONFIGS[name])
    policy = Policy(with_adapters(model_of(CONFIGS[name], "eager"), targets))
    ahead, (nll, _) = counted(lambda: policy(BATCH))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, ROWS, adapters=Adapters(4, targets)) == ahead
    assert flops.backward(shape, ROWS, Backward.lora, adapters=Adapters(4, targets)) == back


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("rank", [0, 4])
def test_gradient_of_a_state_between_blocks(layer: int, rank: int) -> None:
    shape, model = ModelShape.from_config(CONFIGS["llama"]), model_of(CONFIGS["llama"], "eager")
    policy = Policy(with_adapters(model) if rank else model)
    delta = torch.zeros(3, 24, shape.width, requires_grad=True)
    with edit_states(policy, [(module_at_layer(policy, layer), lambda states: states + delta)]):
        nll, _ = policy(BATCH)
    back, _ = counted(lambda: torch.autograd.grad(nll.sum(), delta))
    assert flops.backward(shape, ROWS, Backward.activations, layer=layer, adapters=Adapters(rank)) == back


@pytest.mark.parametrize("rank", [0, 4])
def test_recurrent_layers(rank: int) -> None:
    shape, model = ModelShape.from_config(CONFIGS["qwen3_5"]), model_of(CONFIGS["qwen3_5"], "eager")
    policy, adapters = Policy(with_adapters(model) if rank else model), Adapters(rank)
    ahead, nll = counted(lambda: policy.row_nll(CHUNKS))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, CHUNK_ROWS, adapters=adapters) == ahead
    kind = Backward.lora if rank else Backward.full
    assert flops.backward(shape, CHUNK_ROWS, kind, adapters=adapters) == pytest.approx(back, rel=0.01)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradient_of_a_state_below_attention_or_recurrence(layer: int) -> None:
    shape, policy = ModelShape.from_config(CONFIGS["qwen3_5"]), Policy(model_of(CONFIGS["qwen3_5"], "eager"))
    delta = torch.zeros(2, 512, shape.width, requires_grad=True)
    with edit_states(policy, [(module_at_layer(policy, layer), lambda states: states + delta)]):
        nll = policy.row_nll(CHUNKS)
    back, _ = counted(lambda: torch.autograd.grad(nll.sum(), delta))
    assert flops.backward(shape, CHUNK_ROWS, Backward.activations, layer=layer) == pytest.approx(back, rel=0.01)


@pytest.mark.parametrize("name", ["llama", "phi", "gpt2", "gemma2", "mixtral", "qwen3_moe"])
def test_checkpointing_runs_the_blocks_again(name: str) -> None:
    shape, model = ModelShape.from_config(CONFIGS[name]), model_of(CONFIGS[name], "eager")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = Policy(model)
    nll, _ = policy(BATCH)
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.recompute(shape, ROWS) == back - flops.backward(shape, ROWS, Backward.full)


def test_frozen_costs_nothing_and_training_six_flops_per_parameter_and_token() -> None:
    shape = ModelShape.from_config(CONFIGS["llama"])
    assert flops.backward(shape, ROWS, Backward.frozen) == 0
    # Six FLOPs per parameter and token, the usual rule, for a wide model on short rows with supervised tokens only.
    wide = ModelShape.from_config(CONFIGS["llama"] | {"hidden_size": 2048, "intermediate_size": 8192, "head_dim": 128})
    rows = TokenCounts.of([4.0], 4)
    embedding = wide.vocabulary * wide.width
    whole = flops.forward(wide, rows) + flops.backward(wide, rows, Backward.full)
    assert whole == pytest.approx(6 * (wide.parameters - embedding) * 4, rel=0.01)
