"""Values made of logits: computed in chunks, compared in float64 with full logits, position by position."""

from __future__ import annotations

import pytest
import torch

from erulab import logprobs
from erulab.methods.retain import kl_to_reference

POSITIONS, WIDTH, VOCABULARY = 11, 5, 13
GENERATOR = torch.Generator().manual_seed(8)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


HIDDEN, HEAD = drawn(POSITIONS, WIDTH), drawn(WIDTH, VOCABULARY)
REF_HIDDEN, REF_HEAD = drawn(POSITIONS, WIDTH), drawn(WIDTH, VOCABULARY)
LABELS = torch.randint(0, VOCABULARY, (POSITIONS,), generator=GENERATOR)


def label_squared(logits: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """Returns the square of the label's logit, less the mean of all."""
    return (logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)).square()


def times_reference(logits: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """Returns the inner product of both models' logits."""
    assert reference is not None and not reference.requires_grad
    return (logits * reference).sum(1)


def evaluated(
    functions: list[logprobs.ValueFunction], *, nll: bool, compares: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns the values, and the gradients of a weighted sum of them by hidden states and head."""
    hidden, head = HIDDEN.clone().requires_grad_(), HEAD.clone().requires_grad_()
    reference = (REF_HIDDEN, lambda h: h @ REF_HEAD) if compares else None
    values = logprobs.token_values(hidden, lambda h: h @ head, LABELS, functions, nll=nll, reference=reference)
    weights = torch.linspace(0.5, 2.0, POSITIONS, dtype=torch.float64)
    total = sum((weights * one).sum() for one in values)
    assert isinstance(total, torch.Tensor)
    return [one.detach() for one in values], list(torch.autograd.grad(total, (hidden, head)))


def naive(names: list[str]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The same from full logits, one position at a time."""
    hidden, head = HIDDEN.clone().requires_grad_(), HEAD.clone().requires_grad_()
    columns: dict[str, list[torch.Tensor]] = {"square": [], "product": [], "kl": [], "nll": []}
    for h, r, y in zip(hidden, REF_HIDDEN, LABELS.tolist(), strict=True):
        z, ref = head.T @ h, REF_HEAD.T @ r
        p, q = z.exp() / z.exp().sum(), ref.exp() / ref.exp().sum()
        columns["square"].append((z[y] - sum(z) / VOCABULARY) ** 2)
        columns["product"].append(z.dot(ref))
        columns["kl"].append(sum(q[v] * (q[v] / p[v]).log() for v in range(VOCABULARY)))
        columns["nll"].append(-p[y].log().detach())
    values = [torch.stack(columns[name]) for name in names]
    weights = torch.linspace(0.5, 2.0, POSITIONS, dtype=torch.float64)
    total = sum((weights * one).sum() for one in values)
    assert isinstance(total, torch.Tensor)
    return [one.detach() for one in values], list(torch.autograd.grad(total, (hidden, head)))


@pytest.mark.parametrize("chunk", [1, 4, POSITIONS, 1024])
@pytest.mark.parametrize("nll", [False, True], ids=["values", "values-and-nll"])
@pytest.mark.parametrize("compares", [False, True], ids=["alone", "against-reference"])
def test_chunks_give_values_and_gradients_of_full_logits(
    chunk: int, nll: bool, compares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk of 11 positions in chunks of 4 is shorter; the NLL beside the values carries no gradient."""
    monkeypatch.setattr(logprobs, "CHUNK", chunk)
    functions, names = [label_squared], ["square"]
    if compares:
        functions, names = [*functions, times_reference, kl_to_reference], [*names, "product", "kl"]
    values, gradients = evaluated(functions, nll=nll, compares=compares)
    expected, expected_gradients = naive([*names, *(["nll"] if nll else [])])
    for got, wanted in zip([*values, *gradients], [*expected, *expected_gradients], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_a_function_never_sees_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in backward, where each chunk is computed again; logits of bfloat16 states arrive in float32."""
    monkeypatch.setattr(logprobs, "CHUNK", 4)
    seen: list[int] = []

    def watched(logits: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        assert logits.dtype == torch.float32 and reference is None
        seen.append(len(logits))
        return logits.square().sum(1)

    hidden, head = HIDDEN.bfloat16().requires_grad_(), HEAD.bfloat16()
    (values,) = logprobs.token_values(hidden, lambda h: h @ head, LABELS, [watched])
    assert seen == [4, 4, 3] and values.dtype == torch.float32
    values.sum().backward()
    assert sorted(seen) == [3, 3, 4, 4, 4, 4]
