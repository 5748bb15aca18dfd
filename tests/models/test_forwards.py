"""States that a forward shows are those of transformers: in every layout, with adapters, and in a forward cut short."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from erulab.costs.ledger import Ledger
from erulab.models import packing
from erulab.models.attention import PACKED
from erulab.models.forwards import PartShown, view_reference
from erulab.models.lora import WithoutAdapters
from erulab.models.policy import Policy
from erulab.models.request import ForwardRequest, PartRequest
from erulab.tokens.batch import Batch, Encoded, collate
from tests.models.conftest import tiny_model
from tests.samples.tiny import FORGET, PAIRED, RETAIN, gradients, moved

LAYERS = (1, 3)  # of four blocks
DEPTH = 4
FIRST, SECOND = FORGET, [*PAIRED, *RETAIN]  # two parts; rows of PAIRED begin as those of FORGET do
LAYOUTS = ["padded", "packed"]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Packed: even the smallest model is packed, and openings of two tokens are shared."""
    if request.param == "packed":
        monkeypatch.setattr(packing, "CALL", -1)
        monkeypatch.setattr(packing, "SHORTEST_SHARED", 2)
    return str(request.param)


def model_of(layout: str, kind: str = "llama") -> PreTrainedModel:
    attention = PACKED if layout == "packed" else "sdpa"
    return tiny_model(kind, num_hidden_layers=DEPTH, attn_implementation=attention).double()


def batch_of(*parts: list[Encoded]) -> Batch:
    return collate([row for part in parts for row in part], 0)


def request_of(*parts: list[Encoded], layers: tuple[int, ...] = LAYERS, **asked: Any) -> ForwardRequest:
    """Returns a request that asks the same of every part."""
    wanted = {"nll": False, "states": True, **asked}
    return ForwardRequest(tuple(PartRequest(len(p), sum(row.tokens for row in p), **wanted) for p in parts), layers)


def states_alone(model: PreTrainedModel, rows: list[Encoded], layer: int) -> torch.Tensor:
    """Returns h_layer of the rows' tokens, each row run alone: (own tokens, width)."""
    inputs: list[torch.Tensor] = []
    # The last of transformers' hidden states lies behind the final norm; h_L is its input.
    norm = Policy(model).norm
    hook = norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0][0]))
    found = []
    for row in rows:
        hidden = model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        found.append(hidden[layer][0] if layer < DEPTH else inputs[-1])
    hook.remove()
    return torch.cat(found)


def lens_alone(model: PreTrainedModel, rows: list[Encoded], layer: int) -> torch.Tensor:
    """Returns the NLL of each supervised token as norm and head read it off h_layer, row after row."""
    policy, found = Policy(model), []
    for row in rows:
        logits = policy.head(policy.norm(states_alone(model, [row], layer)))
        for position in range(row.start, row.end):
            exponentials = logits[position - 1].exp()
            found.append(-(exponentials[row.ids[position]] / exponentials.sum()).log())
    return torch.stack(found)


def loss_of(states: dict[int, torch.Tensor]) -> torch.Tensor:
    """Returns a loss that weighs every number of every state differently."""
    terms = []
    for layer, values in states.items():
        weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view_as(values)
        terms.append((layer * weights * values).square().sum())
    return torch.stack(terms).sum()


def shown(policy: Policy, request: ForwardRequest, *parts: list[Encoded]) -> tuple[PartShown, ...]:
    found: tuple[PartShown, ...] = policy(batch_of(*parts), request)
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi", "gemma"])
def test_states_of_each_part_are_those_of_its_rows_alone(kind: str, layout: str) -> None:
    model = model_of(layout, kind)
    policy = Policy(model)
    layers = (0, 1, 3, DEPTH)
    found = shown(policy, request_of(FIRST, SECOND, layers=layers), FIRST, SECOND)
    assert (policy._latest.packing is not None) == (layout == "packed")
    for part, rows in zip(found, (FIRST, SECOND), strict=True):
        assert part.nll is None and list(part.states) == list(layers)
        for layer in layers:
            expected = states_alone(model, rows, layer)
            torch.testing.assert_close(part.states[layer], expected, rtol=1e-5, atol=1e-6)


def test_openings_that_rows_share_give_their_gradient_of_all_rows(layout: str) -> None:
    model = model_of(layout)
    found = shown(Policy(model), request_of(FIRST, SECOND), FIRST, SECOND)
    together = gradients(loss_of(found[0].states) + loss_of(found[1].states), model)
    alone = [{layer: states_alone(model, rows, layer) for layer in LAYERS} for rows in (FIRST, SECOND)]
    expected = gradients(loss_of(alone[0]) + loss_of(alone[1]), model)
    # Norms of llama compute in float32 whatever the model's type.
    assert float((together - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("layers", [(1,), (1, 3), (DEPTH,)])
def test_a_forward_that_ends_at_the_deepest_layer_gives_what_the_whole_one_does(
    layers: tuple[int, ...], layout: str
) -> None:
    model = model_of(layout)
    policy = Policy(model)
    short, whole = request_of(FIRST, layers=layers), request_of(FIRST, layers=layers, nll=True)
    assert (short.last_layer, whole.last_layer) == (max(layers), None)
    ran: list[int] = []
    hooks = [block.mlp.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(policy.blocks)]
    ended = shown(policy, short, FIRST)[0]
    assert ran == list(range(max(layers)))
    complete = shown(policy, whole, FIRST)[0]
    assert ran[max(layers) :] == list(range(DEPTH))
    for hook in hooks:
        hook.remove()
    assert ended.nll is None and complete.nll is not None
    assert all(torch.equal(ended.states[layer], complete.states[layer]) for layer in layers)
    torch.testing.assert_close(gradients(loss_of(ended.states), model), gradients(loss_of(complete.states), model))
    # The blocks are themselves again.
    torch.testing.assert_close(shown(policy, whole, FIRST)[0].nll, complete.nll, rtol=0, atol=0)


@pytest.mark.parametrize("nll", [True, False], ids=["to the head", "cut short"])
def test_gradient_checkpointing_changes_nothing(nll: bool, layout: str) -> None:
    model = model_of(layout).train()
    policy = Policy(model)
    request = request_of(FIRST, SECOND, nll=nll, lens=True)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        found = shown(policy, request, FIRST, SECOND)
        loss = torch.stack([loss_of(part.states) + loss_of(part.lens_nll) for part in found]).sum()
        if nll:
            loss = loss + torch.stack([part.nll.sum() for part in found if part.nll is not None]).sum()
        return loss.detach(), gradients(loss, model)

    plain = both()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = both()
    torch.testing.assert_close(checkpointed, plain, rtol=1e-9, atol=1e-9)


def test_a_part_is_shown_the_same_alone_and_beside_others(layout: str) -> None:
    """Micro-batches may cut the rows anywhere."""
    model = model_of(layout)
    together = shown(Policy(model), request_of(FIRST, SECOND), FIRST, SECOND)[1]
    apart = [shown(Policy(model), request_of([row]), [row])[0] for row in SECOND]
    for layer in LAYERS:
        joined = torch.cat([part.states[layer] for part in apart])
        torch.testing.assert_close(together.states[layer], joined, rtol=1e-6, atol=1e-7)


def test_only_the_parts_that_ask_are_shown_states() -> None:
    model = model_of("padded")
    asked = dataclasses.replace(
        request_of(FIRST, SECOND),
        parts=(*request_of(FIRST).parts, PartRequest(len(SECOND), sum(r.tokens for r in SECOND))),
    )
    first, second = shown(Policy(model), asked, FIRST, SECOND)
    assert first.nll is None and list(first.states) == list(LAYERS)
    assert second.nll is not None and not second.states


@pytest.mark.parametrize("kind", ["llama", "phi", "gpt2"])
def test_lens_reads_labels_off_a_state_by_norm_and_head(kind: str, layout: str) -> None:
    model = model_of(layout, kind)
    request = request_of(FIRST, SECOND, layers=(*LAYERS, DEPTH), nll=True, lens=True)
    for part, rows in zip(shown(Policy(model), request, FIRST, SECOND), (FIRST, SECOND), strict=True):
        assert list(part.lens_nll) == [*LAYERS, DEPTH]
        for layer, nll in part.lens_nll.items():
            torch.testing.assert_close(nll, lens_alone(model, rows, layer), rtol=1e-5, atol=1e-6)
        # At the end of the blocks the lens reads what the model says.
        assert part.nll is not None
        torch.testing.assert_close(part.lens_nll[DEPTH], part.nll, rtol=1e-9, atol=1e-9)


def test_lens_gives_its_gradient_to_blocks_below_norm_and_head(layout: str) -> None:
    model = model_of(layout)
    (part,) = shown(Policy(model), request_of(FIRST, layers=(2,), states=False, lens=True), FIRST)
    assert not part.states
    weights = torch.linspace(-1, 2, len(part.lens_nll[2]), dtype=torch.float64)
    found = gradients((weights * part.lens_nll[2]).sum(), model)
    expected = gradients((weights * lens_alone(model, FIRST, 2)).sum(), model)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def adapted(model: PreTrainedModel) -> PreTrainedModel:
    """Returns the model with adapters that are not zero."""
    from peft import LoraConfig, get_peft_model

    wrapped: Any = get_peft_model(
        model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(3)
    for name, p in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(p, std=0.3, generator=generator)
    return wrapped


def test_the_reference_of_adapters_is_the_model_without_them(layout: str) -> None:
    """It sees the rows that compare with it, runs without adapters, and leaves them on."""
    target = model_of(layout)
    rows = [FIRST, SECOND]
    before = [{layer: states_alone(target, part, layer).detach() for layer in LAYERS} for part in rows]
    policy = Policy(adapted(target))
    request = request_of(*rows, reference_states=True)
    view = view_reference(WithoutAdapters(policy), batch_of(*rows), request)
    assert view is not None and not view.hidden
    found = policy(batch_of(*rows), request, view)
    for part, expected in enumerate(before):
        for layer, states in expected.items():
            torch.testing.assert_close(view.states[part][layer], states, rtol=1e-6, atol=1e-7)
            assert not view.states[part][layer].requires_grad
            assert float((found[part].states[layer].detach() - states).norm()) > 0.1
            with_adapters = states_alone(policy.model, rows[part], layer)
            torch.testing.assert_close(found[part].states[layer], with_adapters, rtol=1e-6, atol=1e-7)


def test_a_reference_runs_the_parts_that_compare_and_ends_at_the_deepest_layer(layout: str) -> None:
    target = model_of(layout)
    frozen = Policy(moved(target), ledger=Ledger()).requires_grad_(False)
    parts = (*request_of(FIRST).parts, *request_of(SECOND, reference_states=True).parts)
    ran: list[int] = []
    for i, block in enumerate(frozen.blocks):
        block.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
    view = view_reference(frozen, batch_of(FIRST, SECOND), ForwardRequest(parts, LAYERS))
    assert ran == list(range(max(LAYERS)))
    assert view is not None and list(view.states) == [1]
    for layer in LAYERS:
        expected = states_alone(frozen.model, SECOND, layer)
        torch.testing.assert_close(view.states[1][layer], expected, rtol=1e-6, atol=1e-7)


def test_no_reference_runs_if_no_part_compares() -> None:
    assert view_reference(Policy(model_of("padded")), batch_of(FIRST), request_of(FIRST)) is None
