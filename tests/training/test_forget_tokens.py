"""Only the chosen tokens of a forgotten answer are in the loss, and another value stands in a paired answer's span."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from erulab.data.rows import Benchmark, Row
from erulab.data.spans import find_spans
from erulab.errors import DataError
from erulab.methods.needs import ForgetTokens, Pairs
from erulab.models.loaded import LoadedModel
from erulab.registry import methods
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import encode_unlearning_rows
from erulab.training.encode_rows import content_hash, encode_paired
from erulab.training.unlearning_batches import UnlearningRows
from tests.cases import Case
from tests.models.conftest import byte_level
from tests.training.conftest import Unlearning

SEED = 3


def encoded(world: Benchmark, loaded: LoadedModel, name: str = "ga", **options: Any) -> UnlearningRows:
    made = methods[name].options(**options)
    encoder = Encoder(loaded.chat, None, Path())
    return encode_unlearning_rows(encoder, world, methods.build(made), SEED, made.forget_tokens)


def texts(loaded: LoadedModel, rows: Any) -> list[str]:
    return [loaded.chat.decode([row.ids[i] for i in row.positions]).strip() for row in rows]


def test_a_span_is_the_value_alone(world: Benchmark, loaded: LoadedModel) -> None:
    whole, span = encoded(world, loaded), encoded(world, loaded, forget_tokens=ForgetTokens.span)
    assert texts(loaded, span.forget) == [row.value for row in world.forget]
    assert [row.ids for row in span.forget] == [row.ids for row in whole.forget]
    assert content_hash(span.retain) == content_hash(whole.retain)
    assert content_hash(span.forget) != content_hash(whole.forget), "keys of models and references tell them apart"


def test_the_gradient_is_that_of_the_spans_tokens(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """ga's loss is minus the mean NLL of its tokens; the logits of all other tokens have no gradient.

    The other side computes the logits of whole rows one by one, and reads the gradient of the loss at each of them.
    """
    case = Case("ga", method_options={"forget_tokens": "span"})
    unlearning = Unlearning(case, world, loaded, global_batch=len(world.forget), micro_batch=8)
    policy, objective, _, subject = unlearning.build(tmp_path)
    for micro in objective.micro_batches(0):
        with objective.micro_step(policy, micro) as (loss, _):
            loss.backward()
    weights = dict(subject.model.named_parameters())
    found = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    subject.model.zero_grad()
    rows = [loaded.chat.encode(row) for row in world.forget]
    total, kept = torch.zeros(()), []
    for row, encoded_row in zip(world.forget, rows, strict=True):
        logits = subject.model(input_ids=torch.tensor([encoded_row.ids])).logits[0]
        logits.retain_grad()
        (value,) = [i for i, token in enumerate(encoded_row.ids) if loaded.chat.decode([token]).strip() == row.value]
        total = total + logits[value - 1].log_softmax(-1)[encoded_row.ids[value]]
        kept.append((logits, value - 1))
    (total / len(rows)).backward()
    for logits, place in kept:
        touched = logits.grad.abs().sum(-1).nonzero().flatten().tolist()
        assert touched == [place]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, weights[name].grad, rtol=1e-4, atol=1e-6)


def test_counts_are_of_the_spans_tokens(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """Per-token means divide by the span's tokens: l of simnpo is the NLL of the one value token."""
    case = Case("simnpo", "reference_free", method_options={"forget_tokens": "span", "retain": "none"})
    policy, objective, _, subject = Unlearning(case, world, loaded).build(tmp_path)
    (micro,) = objective.micro_batches(0)
    with objective.micro_step(policy, micro) as (loss, _):
        found = loss.item()
    losses = []
    rows = encoded(world, loaded, forget_tokens=ForgetTokens.span).forget
    for index in micro.forget:
        row = rows[index]
        (place,) = row.positions
        with torch.no_grad():
            logits = subject.model(input_ids=torch.tensor([row.ids])).logits[0, place - 1]
        nll = -logits.log_softmax(-1)[row.ids[place]]
        losses.append(2 / 2.5 * torch.nn.functional.softplus(-2.5 * nll))
    assert found == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("forget_tokens", [ForgetTokens.all, ForgetTokens.span])
def test_the_same_sentence_has_another_value(
    forget_tokens: ForgetTokens, world: Benchmark, loaded: LoadedModel
) -> None:
    rows = encoded(world, loaded, "dpo", pairs=Pairs.same_sentence, forget_tokens=forget_tokens)
    values = set()
    for row, paired in zip(world.forget, rows.paired, strict=True):
        response = loaded.chat.decode(paired.ids[paired.start :]).strip()
        (value,) = [wrong for wrong in row.candidates if wrong in response.replace(".", " ").split()]
        assert response == row.response.replace(row.value, value) and value != row.value
        values.add(value)
    assert len(values) > 5
    counted = texts(loaded, rows.paired)
    whole = forget_tokens is ForgetTokens.all
    assert all((len(text.split()) > 1) is whole for text in counted)


def test_the_other_value_is_a_function_of_seed_and_row(world: Benchmark, loaded: LoadedModel) -> None:
    def paired(seed: int, rows: Any = world.forget) -> list[tuple[int, ...]]:
        made = encode_paired(Encoder(loaded.chat, None, Path()), rows, Pairs.same_sentence, (), seed)
        return [row.ids for row in made]

    assert paired(3) == paired(3) != paired(4)
    assert paired(3, world.forget[5:9]) == paired(3)[5:9]


OWN = (
    Row("a", "Where?", "Born in Oslo.", spans=("Oslo",)),
    Row("b", "When?", "In 1943, in May.", spans=("1943",)),
    Row("c", "Where?", "Born in Bonn.", spans=("Bonn",), accepted=("Beuel",)),
    Row("d", "When?", "In 1950.", spans=("1950",)),
    Row("e", "Who?", "A weaver of Rome.", spans=("weaver",), span_alternatives=("weaver", "baker")),
)


def test_rows_of_own_files_exchange_values_of_one_kind() -> None:
    """Names with names, numbers with numbers; a row's own list of values comes first, and never gives the true one."""
    chat = ChatFormat(byte_level(), 512)
    for seed in range(20):
        made = encode_paired(Encoder(chat, None, Path()), OWN, Pairs.same_sentence, (), seed)
        assert [chat.decode(row.ids[row.start :]).strip() for row in made] == [
            "Born in Bonn.",
            "In 1950, in May.",
            "Born in Oslo.",
            "In 1943.",
            "A baker of Rome.",
        ]


def test_a_value_of_another_kind_is_better_than_none() -> None:
    chat = ChatFormat(byte_level(), 512)
    made = encode_paired(Encoder(chat, None, Path()), OWN[:2], Pairs.same_sentence, (), 0)
    assert [chat.decode(row.ids[row.start :]).strip() for row in made] == ["Born in 1943.", "In Oslo, in May."]


def test_values_that_are_right_too_are_never_drawn() -> None:
    rows = (*OWN[:1], dataclasses.replace(OWN[2], accepted=("Oslo",)))
    with pytest.raises(DataError, match="no other value for 'Bonn' of row c.*span_alternatives"):
        encode_paired(Encoder(ChatFormat(byte_level(), 512), None, Path()), rows, Pairs.same_sentence, (), 0)


def test_rows_without_spans_are_refused_in_one_line() -> None:
    benchmark = Benchmark("own", (), forget=(*OWN, Row("f", "Who?", "Nobody."), Row("g", "Who?", "I.")), retain=OWN)
    encoder = Encoder(ChatFormat(byte_level(), 512), None, Path())
    ga = methods.build(methods["ga"].options())
    with pytest.raises(DataError, match=r"2 of 7 forget rows mark none within 512 tokens \(f, g\).*field 'span'"):
        encode_unlearning_rows(encoder, benchmark, ga, 0, ForgetTokens.span)
    with pytest.raises(DataError, match="row f marks none"):
        encode_paired(encoder, benchmark.forget, Pairs.same_sentence, (), 0)
    short = Encoder(encoder.chat, len(encoder.chat.encode_prompt(OWN[0])) + 2, Path())
    with pytest.raises(DataError, match="mark none within"):
        encode_unlearning_rows(short, dataclasses.replace(benchmark, forget=OWN), ga, 0, ForgetTokens.span)


def test_pieces_of_a_text_without_a_span_are_left_out() -> None:
    """A long text is learned in several rows; its marked words may stand in one of them."""
    pieces = [Row(f"text/{i}", "", f"Part {i} of Oslo."[: 7 + 9 * (i == 1)], plain=True) for i in range(3)]
    rows = [dataclasses.replace(row, spans=("Oslo",) if "Oslo" in row.response else ()) for row in pieces]
    encoder = Encoder(ChatFormat(byte_level(), 512), None, Path())
    ga = methods.build(methods["ga"].options())
    benchmark = Benchmark("own", (), forget=tuple(rows), retain=OWN)
    made = encode_unlearning_rows(encoder, benchmark, ga, 0, ForgetTokens.span)
    assert [row.row_id for row in made.forget] == ["text/1"]
    assert find_spans(rows[1].response, rows[1].spans) == [(10, 14)]
    nothing = dataclasses.replace(benchmark, forget=(rows[0], rows[2]))
    with pytest.raises(DataError, match="2 of 2 forget rows mark none"):
        encode_unlearning_rows(encoder, nothing, ga, 0, ForgetTokens.span)
