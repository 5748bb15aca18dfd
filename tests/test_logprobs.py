"""Log-probabilities and the policy's NLL, compared with full logits in loops."""

from __future__ import annotations

import pytest
import torch

from erulab import logprobs
from erulab.methods.retain import kl_to_reference
from erulab.methods.seen import TokenValue
from erulab.models.dropout import disable_dropout
from erulab.models.forwards import view_reference
from erulab.models.policy import Policy
from erulab.models.request import ForwardRequest, PartRequest
from erulab.tokens.batch import Batch, Encoded, collate
from tests.samples.tiny import FORGET, KINDS, RETAIN, gradients, moved, naive_nll, naive_token_nll, random_model

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_policy_is_the_models_own_logits(kind: str) -> None:
    """In a padded batch, each token's NLL and the gradient equal those of the row alone, from full logits."""
    model = random_model(kind)
    policy = Policy(model)
    batch = collate(FORGET, pad_id=1)
    nll = policy.token_nll(batch)
    expected = torch.stack([value for row in FORGET for value in naive_token_nll(model, row)])
    # Hugging Face computes norms and rotary angles in float32 also in float64 models.
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        policy.row_nll(batch), torch.stack([naive_nll(model, row) for row in FORGET]), rtol=1e-5, atol=1e-5
    )
    weights = torch.linspace(0.5, 2.0, len(FORGET), dtype=torch.float64)
    wanted = sum(w * naive_nll(model, row) for w, row in zip(weights, FORGET, strict=True))
    torch.testing.assert_close(
        gradients((weights * policy.row_nll(batch)).sum(), model), gradients(wanted, model), rtol=1e-4, atol=1e-4
    )


@every_kind
def test_padding_changes_nothing(kind: str) -> None:
    """A row's NLL stays the same beside longer rows, with another pad id, and if the pad is the end-of-turn token."""
    policy = Policy(random_model(kind))
    alone = torch.cat([policy.row_nll(collate([row], 0)) for row in FORGET])
    for pad_id in (0, 1, 9):
        padded = policy.row_nll(collate([*FORGET, RETAIN[2]], pad_id))[:-1]
        torch.testing.assert_close(padded, alone, rtol=1e-6, atol=1e-6)


def test_inner_end_of_turn_is_seen_when_it_is_also_the_pad() -> None:
    """A mask made by `ids != pad` would hide the inner token and change the NLL of the tokens after it."""
    model = random_model()
    row = Encoded("turns", (0, 5, 1, 9, 11, 1, 7, 1), 6, 8)
    got = Policy(model).row_nll(collate([row, FORGET[2]], pad_id=1))[0]
    torch.testing.assert_close(got, naive_nll(model, row), rtol=1e-6, atol=1e-6)
    assert collate([row], 1).tokens.tolist() == [2], "the end-of-turn token is supervised"


def nll_and_kl(policy: Policy, reference: Policy, batch: Batch, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """NLL of all rows, and KL to the reference at the tokens of the last `rows` rows."""
    counts = batch.tokens.tolist()
    first = len(counts) - rows
    kl = TokenValue("kl", kl_to_reference, reads_reference=True)
    parts = (PartRequest(first, sum(counts[:first])), PartRequest(rows, sum(counts[first:]), values=(kl,)))
    request = ForwardRequest(parts)
    shown = policy(batch, request, view_reference(reference, batch, request))
    return torch.cat([part.nll for part in shown]), shown[1].values["kl"]


def test_tokens_are_counted_after_the_shift() -> None:
    """A plain text of five tokens has four predicted ones."""
    text = Encoded("text", (4, 5, 6, 7, 8), 0, 5)
    batch = collate([text, FORGET[0]], 0)
    nll = Policy(random_model()).token_nll(batch)
    assert text.tokens == 4 and batch.tokens.tolist() == [4, 4] and len(nll) == 8


def test_row_truncated_away_counts_nothing() -> None:
    row = Encoded("cut", (0, 5, 6), 3, 3)
    batch = collate([row, FORGET[0]], 0)
    assert row.tokens == 0 and Policy(random_model()).row_nll(batch)[0] == 0


@pytest.mark.parametrize("grad", [True, False])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, grad: bool) -> None:
    model, ref = random_model(), moved(random_model())
    policy, reference = Policy(model), Policy(ref)
    batch = collate(FORGET, 0)
    with torch.set_grad_enabled(grad):
        whole = nll_and_kl(policy, reference, batch, 3)
        monkeypatch.setattr(logprobs, "CHUNK", 3)
        split = nll_and_kl(policy, reference, batch, 3)
    for a, b in zip(whole, split, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    if grad:
        first, second = (gradients(nll.pow(2).sum() + kl.sum(), model) for nll, kl in (whole, split))
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)


def test_kl_is_zero_with_zero_gradient_at_the_reference() -> None:
    model = random_model()
    batch = collate(FORGET, 0)
    _, kl = nll_and_kl(Policy(model), Policy(moved(model, 0.0)), batch, len(FORGET))
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-12)
    assert gradients(kl.sum(), model).abs().max() < 1e-9


def test_kl_is_taken_on_the_last_rows_over_the_vocabulary() -> None:
    model, ref = random_model(), moved(random_model())
    batch = collate([*FORGET, *RETAIN], 0)
    _, kl = nll_and_kl(Policy(model), Policy(ref), batch, len(RETAIN))
    expected = []
    for row in RETAIN:
        p = model(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
        q = ref(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
        expected += [
            sum(q[t - 1, v] * (q[t - 1, v] / p[t - 1, v]).log() for v in range(p.shape[1]))
            for t in range(row.start, row.end)
        ]
    torch.testing.assert_close(kl, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert kl.sum() > 0.01


def test_kl_moves_the_policy_only() -> None:
    model, ref = random_model(), moved(random_model())
    batch = collate(RETAIN, 0)
    _, kl = nll_and_kl(Policy(model), Policy(ref), batch, len(RETAIN))
    kl.sum().backward()
    assert all(p.grad is None for p in ref.parameters()) and gradients_of(model) > 0


def gradients_of(model: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)


def test_log_softmax_of_bfloat16_is_float32() -> None:
    """With a margin of 20 nats over 49k classes, bfloat16 would round the NLL to 0 or to steps of 0.1 nats."""
    logits = torch.zeros(1, 49152, dtype=torch.bfloat16)
    logits[0, 7] = 20
    nll = logprobs.token_nll(torch.zeros(1, 2, dtype=torch.bfloat16), lambda h: logits, torch.tensor([7]))
    assert nll.dtype == torch.float32
    assert nll.item() == pytest.approx(1.013e-4, abs=1e-5)  # log1p(49151 exp(-20)), to float32 at 20
    assert logprobs.log_softmax(logits).dtype == torch.float32


def test_row_sums_follow_the_mask() -> None:
    supervised = torch.tensor([[False, True, True], [False, False, False], [False, False, True]])
    assert logprobs.row_sums(torch.tensor([1.0, 2.0, 4.0]), supervised).tolist() == [3.0, 0.0, 4.0]


def test_dropout_off_makes_training_mode_deterministic() -> None:
    """Gradient checkpointing needs training mode; with dropout a policy would differ from its reference at step 0."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    policy, batch = Policy(model.train()), collate(FORGET, 0)
    assert not torch.equal(policy.row_nll(batch), policy.row_nll(batch))
    disable_dropout(model)
    assert torch.equal(policy.row_nll(batch), policy.row_nll(batch))
