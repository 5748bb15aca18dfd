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
from erulab.costs.backward import Gradients, backward, recomputed, state_backward
from erulab.costs.flops import TokenCounts
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape
from erulab.costs.trained import trained_weights, weight_shapes
from erulab.methods.base import block_of
from erulab.models.loaded import LoadedModel
from erulab.models.lora import with_lora
from erulab.models.policy import Policy
from erulab.models.request import ForwardRequest, PartRequest
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
    by_operation = counter.get_flop_counts().get("Global", {})  # lacking if nothing was counted
    return sum(n for operation, n in by_operation.items() if "convolution" not in str(operation)), result


def every_gradient(shape: ModelShape, adapters: Adapters = NO_ADAPTERS, *, checkpointing: bool = False) -> Gradients:
    """The gradients of all weights, or of all adapters."""
    return Gradients(trained_weights(shape, tuple(weight_shapes(shape, adapters))), adapters, checkpointing)


def with_adapters(model: PreTrainedModel, targets: tuple[str, ...] = ()) -> Any:
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    return with_lora(loaded, rank=4, alpha=8, seed=0, targets=targets or None).model


def in_blocks(first: int, last: int, *words: str) -> Callable[[str], bool]:
    """Chooses weights of blocks first .. last-1 whose names have one of the words."""
    return lambda name: block_of(name) in range(first, last) and any(word in name for word in words or ("",))


@pytest.mark.parametrize("name", EXACT)
def test_forward_and_full_backward(name: str) -> None:
    policy, shape = Policy(model_of(CONFIGS[name], "eager")), ModelShape.from_config(CONFIGS[name])
    ahead, nll = counted(lambda: policy.token_nll(BATCH))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, ROWS) == ahead
    assert backward(shape, ROWS, every_gradient(shape)) == back


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
    ahead, nll = counted(lambda: policy.token_nll(BATCH))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, ROWS, adapters=Adapters(4, targets)) == ahead
    assert backward(shape, ROWS, every_gradient(shape, Adapters(4, targets))) == back


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("rank", [0, 4])
def test_gradient_of_a_state_between_blocks(layer: int, rank: int) -> None:
    shape, model = ModelShape.from_config(CONFIGS["llama"]), model_of(CONFIGS["llama"], "eager")
    policy = Policy(with_adapters(model) if rank else model)
    delta = torch.zeros(3, 24, shape.width, requires_grad=True)
    with edit_states(policy, [(module_at_layer(policy, layer), lambda states: states + delta)]):
        nll = policy.token_nll(BATCH)
    back, _ = counted(lambda: torch.autograd.grad(nll.sum(), delta))
    assert state_backward(shape, ROWS, layer, adapters=Adapters(rank)) == back


@pytest.mark.parametrize("rank", [0, 4])
def test_recurrent_layers(rank: int) -> None:
    shape, model = ModelShape.from_config(CONFIGS["qwen3_5"]), model_of(CONFIGS["qwen3_5"], "eager")
    policy, adapters = Policy(with_adapters(model) if rank else model), Adapters(rank)
    ahead, nll = counted(lambda: policy.row_nll(CHUNKS))
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.forward(shape, CHUNK_ROWS, adapters=adapters) == ahead
    assert backward(shape, CHUNK_ROWS, every_gradient(shape, adapters)) == pytest.approx(back, rel=0.01)


@pytest.mark.parametrize(
    "trained",
    [
        in_blocks(0, 1, "in_proj_z"),
        in_blocks(0, 1, "in_proj_qkv", "mlp.up_proj"),
        in_blocks(1, 2, "q_proj"),
        in_blocks(0, 2, "down_proj"),
    ],
    ids=["gate", "input", "attention", "MLP"],
)
def test_some_weights_of_recurrent_layers(trained: Callable[[str], bool]) -> None:
    shape, model = ModelShape.from_config(CONFIGS["qwen3_5"]), model_of(CONFIGS["qwen3_5"], "eager")
    for weight, parameter in model.named_parameters():
        parameter.requires_grad_(trained(weight))
    chosen = tuple(weight for weight in weight_shapes(shape, NO_ADAPTERS) if trained(weight))
    nll = Policy(model).row_nll(CHUNKS)
    back, _ = counted(lambda: nll.sum().backward())
    made = backward(shape, CHUNK_ROWS, Gradients(trained_weights(shape, chosen)))
    assert made == pytest.approx(back, rel=0.01)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradient_of_a_state_below_attention_or_recurrence(layer: int) -> None:
    shape, policy = ModelShape.from_config(CONFIGS["qwen3_5"]), Policy(model_of(CONFIGS["qwen3_5"], "eager"))
    delta = torch.zeros(2, 512, shape.width, requires_grad=True)
    with edit_states(policy, [(module_at_layer(policy, layer), lambda states: states + delta)]):
        nll = policy.row_nll(CHUNKS)
    back, _ = counted(lambda: torch.autograd.grad(nll.sum(), delta))
    assert state_backward(shape, CHUNK_ROWS, layer) == pytest.approx(back, rel=0.01)


@pytest.mark.parametrize("name", ["llama", "phi", "gpt2", "gemma2", "mixtral", "qwen3_moe"])
def test_checkpointing_runs_the_blocks_again(name: str) -> None:
    shape, model = ModelShape.from_config(CONFIGS[name]), model_of(CONFIGS[name], "eager")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = Policy(model)
    nll = policy.token_nll(BATCH)
    back, _ = counted(lambda: nll.sum().backward())
    assert flops.recompute(shape, ROWS) == back - backward(shape, ROWS, every_gradient(shape))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "rank", "trained"),
    [
        ("llama", 0, in_blocks(1, 3)),
        ("llama", 0, in_blocks(1, 2, "down_proj")),
        ("llama", 0, in_blocks(0, 2, "gate_proj", "v_proj")),
        ("llama", 0, in_blocks(1, 3, "k_proj")),
        ("llama", 0, in_blocks(2, 3, "layernorm")),
        ("llama", 0, lambda name: "lm_head" in name or "model.norm" in name),
        ("llama", 4, in_blocks(0, 2)),
        ("llama", 4, in_blocks(1, 2, "up_proj")),
        ("qwen3", 0, in_blocks(1, 2, "q_norm")),
        ("qwen2", 0, in_blocks(1, 2, "k_proj.bias")),
        ("phi", 0, in_blocks(1, 3)),
        ("phi", 0, in_blocks(1, 2, "fc2")),
        ("gpt2", 0, in_blocks(1, 3)),
        ("gpt2", 0, in_blocks(0, 2, "mlp.c_proj")),
        ("gemma2", 0, in_blocks(1, 2, "down_proj")),
        ("gemma3", 0, in_blocks(1, 2, "k_norm")),
        ("mixtral", 0, in_blocks(1, 2, "down_proj")),
        ("mixtral", 4, in_blocks(1, 2)),
        ("olmoe", 0, in_blocks(0, 2, "gate_up_proj", "v_proj")),
        ("qwen3_moe", 0, in_blocks(0, 2, "down_proj")),
    ],
)
def test_backward_where_only_some_weights_are_trained(
    name: str, rank: int, trained: Callable[[str], bool], checkpointing: bool
) -> None:
    shape, model = ModelShape.from_config(CONFIGS[name]), model_of(CONFIGS[name], "eager")
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if not rank:
            model.disable_input_require_grads()  # as assembly.freeze_untrained does
    policy, adapters = Policy(with_adapters(model) if rank else model), Adapters(rank)
    for weight, parameter in policy.model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and trained(weight))
    chosen = tuple(weight for weight in weight_shapes(shape, adapters) if trained(weight))
    gradients = Gradients(trained_weights(shape, chosen), adapters, checkpointing)
    nll = policy.token_nll(BATCH)
    back, _ = counted(lambda: nll.sum().backward())
    assert backward(shape, ROWS, gradients) + checkpointing * recomputed(shape, ROWS, gradients) == back


@pytest.mark.parametrize("last", [0, 1, 3])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_forward_that_ends_at_a_layer(last: int, rank: int) -> None:
    shape, model = ModelShape.from_config(CONFIGS["llama"]), model_of(CONFIGS["llama"], "eager")
    policy, adapters = Policy(with_adapters(model) if rank else model), Adapters(rank)
    request = ForwardRequest((PartRequest(3, 24, nll=False, states=True),), (last,))
    headless = TokenCounts.of([24, 24, 24], 0)
    ahead, (shown,) = counted(lambda: policy(BATCH, request))
    assert flops.forward(shape, headless, last=last, adapters=adapters) == ahead
    if last or not rank:  # with adapters nothing below layer 0 is trained
        back, _ = counted(lambda: shown.states[last].sum().backward())
        assert backward(shape, headless, every_gradient(shape, adapters), last=last) == back


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rank", [0, 4])
def test_weights_are_listed_by_name_and_size(name: str, rank: int) -> None:
    model = model_of(CONFIGS[name])
    listed = weight_shapes(ModelShape.from_config(CONFIGS[name]), Adapters(rank))
    model = with_adapters(model) if rank else model
    weights = {weight: sorted(p.shape) for weight, p in model.named_parameters() if p.requires_grad}
    assert {weight: sorted(shape) for weight, shape in listed.items()} == weights


def test_frozen_costs_nothing_and_training_six_flops_per_parameter_and_token() -> None:
    shape = ModelShape.from_config(CONFIGS["llama"])
    assert backward(shape, ROWS, Gradients(trained_weights(shape, ()))) == 0
    # Six FLOPs per parameter and token, the usual rule, for a wide model on short rows with supervised tokens only.
    wide = ModelShape.from_config(CONFIGS["llama"] | {"hidden_size": 2048, "intermediate_size": 8192, "head_dim": 128})
    rows = TokenCounts.of([4.0], 4)
    embedding = wide.vocabulary * wide.width
    whole = flops.forward(wide, rows) + backward(wide, rows, every_gradient(wide))
    assert whole == pytest.approx(6 * (wide.parameters - embedding) * 4, rel=0.01)
