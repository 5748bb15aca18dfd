"""Estimated memory against the tensors that autograd keeps and the bytes that torch's allocator gives on the CPU."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from erulab import logprobs
from erulab.adversaries.hooks import edit_states
from erulab.costs import activations
from erulab.costs.memory import Memory, estimate_memory
from erulab.costs.setup import MicroBatch, NumberFormat, Reads, Sharding, TrainingSetup
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape
from erulab.costs.trained import weight_shapes
from erulab.methods.base import block_of
from erulab.methods.retain import kl_to_reference
from erulab.methods.seen import TokenValue
from erulab.models.forwards import PartShown, ReferenceView, view_reference
from erulab.models.policy import Policy
from erulab.models.request import ForwardRequest, PartRequest
from erulab.models.smollm2 import ARCHITECTURE
from erulab.options import Precision
from erulab.training.local import LocalEngine
from tests.costs.families import CONFIGS, batch_of, model_of

LLAMA = CONFIGS["llama"]


def saved_bytes(policy: Policy, lengths: list[int], supervised: int, numbers: NumberFormat) -> int:
    """Returns the bytes of the storages that a forward keeps for its backward, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if numbers is NumberFormat.autocast else contextlib.nullcontext()
    with autocast, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.token_nll(batch_of(lengths, supervised))
    return sum(size for size, _ in kept.values())


# In families with several kinds of blocks: the key that names each block's kind, and the kind that is compared.
KINDS = {"qwen3_5": "full_attention", "qwen3_5 recurrent": "linear_attention"}


@pytest.mark.parametrize("numbers", NumberFormat)
@pytest.mark.parametrize("name", [*CONFIGS, "qwen3_5 recurrent"])
def test_saved_activations_of_a_block(name: str, numbers: NumberFormat) -> None:
    """Compares a model of four blocks with one of two, so that nothing outside the blocks counts."""
    rows, length = 4, 128 if name == "qwen3_5 recurrent" else 22
    found, predicted = [], []
    for layers in (2, 4):
        config = CONFIGS[name.removesuffix(" recurrent")]
        config = config | {"n_layer" if name == "gpt2" else "num_hidden_layers": layers}
        if name in KINDS:
            config["layer_types"] = [KINDS[name]] * layers
        if name == "qwen3_moe":
            config["mlp_only_layers"] = []
        policy = Policy(with_grouped_experts(model_of(config), numbers))
        found.append(saved_bytes(policy, [length, length - 1] * (rows // 2), 8, numbers))
        shape = ModelShape.from_config(config)
        made = estimate_memory(shape, MicroBatch(rows, length, 8 * rows), TrainingSetup(numbers))
        casts = made.weights - shape.parameters * numbers.weight  # autocast keeps a copy of each matrix
        predicted.append(made.activations + casts)
    assert predicted[1] - predicted[0] == pytest.approx(found[1] - found[0], rel=0.01)


def with_grouped_experts(model: PreTrainedModel, numbers: NumberFormat) -> PreTrainedModel:
    """Returns the model in the format of its weights, with all experts in one product, as a run loads it."""
    if "num_experts_per_tok" in model.config.to_dict():
        model.set_experts_implementation("grouped_mm")
    return model.to(torch.bfloat16) if numbers is NumberFormat.bf16 else model


def test_saved_activations_of_eager_attention() -> None:
    found, predicted = [], []
    for layers in (2, 4):
        config = LLAMA | {"num_hidden_layers": layers}
        found.append(saved_bytes(Policy(model_of(config, "eager")), [30, 29], 8, NumberFormat.fp32))
        training = TrainingSetup(NumberFormat.fp32, eager_attention=True)
        predicted.append(estimate_memory(ModelShape.from_config(config), MicroBatch(2, 30, 16), training).activations)
    assert predicted[1] - predicted[0] == pytest.approx(found[1] - found[0], rel=0.02)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama", ()),
        ("llama", ("q_proj", "v_proj")),
        ("llama", ("o_proj", "down_proj")),
        ("qwen3", ("q_proj", "v_proj")),
        ("gemma2", ()),
        ("gemma2", ("v_proj",)),
        ("gemma3", ()),
        ("mixtral", ("q_proj", "k_proj", "v_proj", "o_proj")),
    ],
)
@pytest.mark.parametrize("numbers", NumberFormat)
def test_saved_activations_of_a_block_with_adapters(numbers: NumberFormat, name: str, targets: tuple[str, ...]) -> None:
    found, predicted = [], []
    for layers in (2, 4):
        config = CONFIGS[name] | {"num_hidden_layers": layers}
        model: Any = with_grouped_experts(model_of(config), numbers)
        options = LoraConfig(r=4, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM")
        adapted: Any = get_peft_model(model, options, autocast_adapter_dtype=False)
        found.append(saved_bytes(Policy(adapted), [22, 21, 22, 21], 8, numbers))
        shape = ModelShape.from_config(config)
        adapters = Adapters(4, targets)
        made = estimate_memory(shape, MicroBatch(4, 22, 32), TrainingSetup(numbers, adapters=adapters))
        casts = made.weights - (shape.parameters + shape.adapter_parameters(adapters)) * numbers.weight
        predicted.append(made.activations + casts)
    exact = numbers is not NumberFormat.autocast  # there adapters are cast too
    assert predicted[1] - predicted[0] == pytest.approx(found[1] - found[0], rel=0.01 if exact else 0.1)


@dataclass(frozen=True)
class Peak:
    """A model and micro-batch; each of PEAKS has its peak at another moment of the step."""

    config: dict[str, Any]
    rows: int
    length: int
    supervised: int


def llama(width: int, mlp: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return LLAMA | {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


PEAKS = {
    "activations": Peak(llama(256, 704, 4, 8, 8, 2048, False), 8, 64, 24),
    "logits in chunks": Peak(llama(192, 512, 4, 6, 2, 2000, True), 16, 96, 80),
    "logits": Peak(llama(192, 512, 4, 6, 2, 8000, True), 8, 96, 64),
    "capped logits": Peak(
        {**llama(192, 512, 4, 6, 2, 8000, True), "model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32},
        8,
        96,
        64,
    ),
    "gradients": Peak(llama(512, 1408, 4, 8, 8, 4000, False), 2, 16, 4),
    "gradients, tied": Peak(llama(512, 1408, 4, 8, 8, 4000, True), 2, 16, 4),
}


def allocated(
    peak: Peak,
    numbers: NumberFormat,
    *,
    checkpointing: bool = False,
    micro_batches: int = 1,
    request: ForwardRequest | None = None,
    trained: Callable[[str], bool] = lambda name: True,
) -> tuple[int, int]:
    """Returns (highest, last) bytes beyond the weights that torch's allocator gave in one step, before the update.

    Args:
        request: what the forward is asked for; the loss sums all of it. None: NLL.
        trained: chooses the trained weights by name.
    """
    model = model_of(peak.config)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = batch_of([peak.length - i % 2 for i in range(peak.rows)], peak.supervised)
    precision = Precision.fp32 if numbers is NumberFormat.fp32 else Precision.bf16
    frozen = Policy(copy.deepcopy(model)).requires_grad_(False) if request and request.reads_reference else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    if not trained("model.embed_tokens.weight"):
        model.disable_input_require_grads()
    engine = LocalEngine(Policy(model), weight_decay=0.0, clip=1.0, precision=precision)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for i in range(micro_batches):
            with engine.autocast():
                view = None if frozen is None or request is None else view_reference(frozen, batch, request)
                loss = _summed(engine(batch, request, view), view)
                engine.backward(loss, last=i == micro_batches - 1)
                del loss, view
    return _highest_and_last(profiled)


def _summed(parts: Sequence[PartShown], view: ReferenceView | None) -> torch.Tensor:
    """Returns the sum of all that is shown; of states, of their squares or squared distances to the reference's."""
    found = []
    for i, part in enumerate(parts):
        found += [part.nll] if part.nll is not None and part.nll.requires_grad else []
        found += [*part.values.values(), *part.lens_nll.values()]
        for layer, states in part.states.items():
            compared = None if view is None else view.states.get(i, {}).get(layer)
            # Squared after a difference, as losses on states are.
            found.append((states - (1.0 if compared is None else compared)).square())
    return torch.stack([one.sum() for one in found]).sum()


def _highest_and_last(profiled: profile) -> tuple[int, int]:
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest, now


@pytest.mark.parametrize(("checkpointing", "micro_batches"), [(False, 1), (True, 1), (False, 2)])
@pytest.mark.parametrize("numbers", [NumberFormat.fp32, NumberFormat.autocast])
@pytest.mark.parametrize("name", PEAKS)
def test_peak_of_a_step(name: str, numbers: NumberFormat, checkpointing: bool, micro_batches: int) -> None:
    peak, shape = PEAKS[name], ModelShape.from_config(PEAKS[name].config)
    highest, last = allocated(peak, numbers, checkpointing=checkpointing, micro_batches=micro_batches)
    micro = MicroBatch(peak.rows, peak.length, peak.rows * peak.supervised, alone=micro_batches == 1)
    made = estimate_memory(shape, micro, TrainingSetup(numbers, checkpointing=checkpointing))
    assert last == made.gradients == 4 * shape.parameters
    assert made.optimizer == 8 * shape.parameters
    assert made.peak - made.optimizer - 4 * shape.parameters == pytest.approx(highest, rel=0.06)


KL = TokenValue("kl", kl_to_reference, reads_reference=True)


@pytest.mark.parametrize("name", ["logits", "logits in chunks"])
@pytest.mark.parametrize("numbers", [NumberFormat.fp32, NumberFormat.autocast])
def test_peak_of_a_step_with_kl(name: str, numbers: NumberFormat) -> None:
    peak, kl_rows = PEAKS[name], PEAKS[name].rows // 2
    n = kl_rows * peak.supervised
    parts = (PartRequest(peak.rows - kl_rows, n), PartRequest(kl_rows, n, values=(KL,)))
    highest, _ = allocated(peak, numbers, request=ForwardRequest(parts))
    shape = ModelShape.from_config(peak.config)
    micro = MicroBatch(peak.rows, peak.length, peak.rows * peak.supervised, Reads(valued=n, compared=n))
    made = estimate_memory(shape, micro, TrainingSetup(numbers, frozen_copy=True))
    assert made.peak - made.optimizer - 8 * shape.parameters == pytest.approx(highest, rel=0.1)


def down_below(layer: int) -> Callable[[str], bool]:
    return lambda name: "down_proj" in name and block_of(name) in range(layer - 2, layer)


@pytest.mark.parametrize("numbers", [NumberFormat.fp32, NumberFormat.autocast])
@pytest.mark.parametrize("name", ["activations", "logits in chunks"])
@pytest.mark.parametrize("compared", [False, True])
def test_peak_of_a_step_that_reads_states_and_trains_few_weights(
    name: str, numbers: NumberFormat, compared: bool
) -> None:
    """As rmu does: the forward ends at layer 3 of 4, and only the last matrices of two blocks are trained."""
    peak, shape = PEAKS[name], ModelShape.from_config(PEAKS[name].config)
    n = peak.rows * peak.supervised
    part = PartRequest(peak.rows, n, nll=False, states=True, reference_states=compared)
    highest, last = allocated(peak, numbers, request=ForwardRequest((part,), (3,)), trained=down_below(3))
    own = peak.rows * peak.length - peak.rows // 2
    reads = Reads(n, states=own, compared_states=own * compared, last=3)
    trained = tuple(weight for weight in weight_shapes(shape, NO_ADAPTERS) if down_below(3)(weight))
    made = estimate_memory(
        shape,
        MicroBatch(peak.rows, peak.length, n, reads),
        TrainingSetup(numbers, trained=trained, frozen_copy=compared),
    )
    entries = 2 * shape.width * shape.mlp_width
    assert last == made.gradients == 4 * entries
    assert made.optimizer == 8 * entries
    held = made.optimizer + 4 * shape.parameters * (2 if compared else 1)
    assert made.peak - held == pytest.approx(highest, rel=0.1)


def test_peak_of_smollm2() -> None:
    """SmolLM2-135M's sizes with random weights, which take as much memory: 8 rows of 128 tokens, 48 supervised."""
    peak = Peak({**LLAMA, **ARCHITECTURE}, 8, 128, 48)
    shape = ModelShape.from_config(ARCHITECTURE)
    highest, _ = allocated(peak, NumberFormat.fp32)
    made = estimate_memory(shape, MicroBatch(8, 128, 8 * 48), TrainingSetup())
    assert made.peak - made.optimizer - 4 * shape.parameters == pytest.approx(highest, rel=0.06)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "qwen3_5"])
@pytest.mark.parametrize("numbers", NumberFormat)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_saved_activations_where_few_weights_are_trained(block: int, numbers: NumberFormat, name: str) -> None:
    """What training the last matrix of one block takes more than that of the next block, or than no block's."""
    shape, length = ModelShape.from_config(CONFIGS[name]), 128
    found, predicted = [], []
    for lowest in (block, block + 1):
        policy = Policy(with_grouped_experts(model_of(CONFIGS[name]), numbers))
        trained = tuple(weight for weight in weight_shapes(shape, NO_ADAPTERS) if f".{lowest}.mlp" in weight)
        trained = tuple(weight for weight in trained if "down_proj" in weight)
        for weight, parameter in policy.model.named_parameters():
            parameter.requires_grad_(weight in trained)
        # Without a trained block too, final states require a gradient.
        delta = torch.zeros(1, dtype=policy.model.dtype, requires_grad=True)
        with edit_states(policy, [(policy.norm, lambda states, delta=delta: states + delta)]):
            found.append(saved_bytes(policy, [length, length - 1], 8, numbers))
        made = estimate_memory(shape, MicroBatch(2, length, 16), TrainingSetup(numbers, trained=trained))
        predicted.append(made.activations + made.weights)
    last = shape.every_block[block].linears[-1]
    # Autocast keeps the copy of a trained matrix in its cache, which no saved tensor shows.
    unseen = 2 * last.weights if numbers is NumberFormat.autocast and block == 2 and last.copies == 1 else 0
    assert predicted[0] - predicted[1] - unseen == pytest.approx(found[0] - found[1], rel=0.03)


def test_logits_have_the_chunk_size_of_logprobs() -> None:
    assert logprobs.CHUNK == activations.CHUNK


def test_sharding_divides_the_parts_of_its_stage() -> None:
    shape = ModelShape.from_config(LLAMA)
    micro, n = MicroBatch(2, 16, 8), shape.parameters

    def parts(stage: int) -> tuple[float, float, float]:
        made = estimate_memory(shape, micro, TrainingSetup(NumberFormat.bf16, Sharding(stage, 4)))
        return made.weights, made.gradients, made.optimizer

    # bfloat16 weights and gradients; two moments and a master in float32.
    assert parts(0) == (2 * n, 2 * n, 12 * n)
    assert parts(1) == (2 * n, 2 * n, 3 * n)
    assert parts(2) == (2 * n, n / 2, 3 * n)
    assert parts(3) == (n / 2, n / 2, 3 * n)
    plain, offloaded = (
        estimate_memory(shape, micro, TrainingSetup(NumberFormat.bf16, Sharding(2, 4, off))) for off in (False, True)
    )
    assert offloaded.optimizer == 0 and offloaded.peak < plain.peak
    # In host memory: two moments, a master and the gradient in float32, a quarter per process; before that, the model.
    assert offloaded.host == plain.host == 4 * n
    alone = estimate_memory(shape, micro, TrainingSetup(NumberFormat.bf16, Sharding(2, 1, True)))
    assert alone.host == 16 * n


def test_a_model_is_loaded_whole_before_it_is_sharded() -> None:
    """Exception: a folder under stage 3, where each process holds no more than its part and one tensor."""
    shape = ModelShape.from_config(LLAMA | {"num_hidden_layers": 400})
    n, head = shape.parameters, shape.head_weights
    for stage in (1, 2, 3):
        made = estimate_memory(shape, MicroBatch(1, 2, 1), TrainingSetup(NumberFormat.bf16, Sharding(stage, 1000)))
        assert made.loading == 4 * n <= made.peak
    # The frozen copy of retain=kl stays whole.
    kept = estimate_memory(
        shape, MicroBatch(1, 2, 1), TrainingSetup(NumberFormat.bf16, Sharding(2, 1000), frozen_copy=True)
    )
    assert kept.reference == 4 * n and kept.loading == 8 * n
    sharded = TrainingSetup(NumberFormat.bf16, Sharding(3, 10), frozen_copy=True, loads_whole=False)
    made = estimate_memory(shape, MicroBatch(1, 2, 1), sharded)
    assert made.reference == pytest.approx(2 * n / 10)
    assert made.loading == pytest.approx(2 * 2 * n / 10 + 2 * head)
    assert made.host == 0


def test_stage_3_offloads_weights_too() -> None:
    shape = ModelShape.from_config(LLAMA)
    micro, n = MicroBatch(2, 16, 8), shape.parameters

    def made(offload: bool, disk: bool = False, frozen: bool = False) -> Memory:
        sharding = Sharding(3, 4, offload, disk)
        return estimate_memory(
            shape, micro, TrainingSetup(NumberFormat.bf16, sharding, frozen_copy=frozen, loads_whole=False)
        )

    cpu, disk = made(True), made(True, disk=True)
    assert cpu.weights == cpu.gradients == cpu.optimizer == disk.weights == disk.optimizer == 0
    assert made(False).peak - cpu.peak >= (2 + 12) * n / 4
    # A quarter per process: weights in bfloat16, the gradient in float32, two moments and a master.
    assert cpu.host == (2 + 4 + 12) * n / 4
    assert disk.host == (2 + 4) * n / 4
    assert made(True, frozen=True).host == cpu.host + 2 * n / 4 and made(True, frozen=True).reference == 0


def test_adapters_train_little_and_need_no_frozen_copy() -> None:
    shape = ModelShape.from_config(LLAMA)
    made = estimate_memory(shape, MicroBatch(2, 16, 8), TrainingSetup(adapters=Adapters(4), frozen_copy=True))
    assert made.gradients == 4 * shape.adapter_parameters(Adapters(4))
    assert made.optimizer == 8 * shape.adapter_parameters(Adapters(4))
    assert made.reference == 0
    whole = estimate_memory(shape, MicroBatch(2, 16, 8), TrainingSetup(frozen_copy=True))
    assert whole.reference == 4 * shape.parameters
