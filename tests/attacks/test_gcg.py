"""GCG's gradient and loss against finite differences, against the text that a user would type, and against nanogcg."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from erulab.attacks.gcg import ANSWER_TOKENS, Gcg, GcgOptions
from erulab.attacks.optimising import optimised
from erulab.attacks.optimising.gradients import SuffixLoss, encode_target, nll_and_gradient
from erulab.attacks.optimising.optimised import PromptMode
from erulab.data.rows import Row
from erulab.evaluation.scoring import score
from erulab.models.loaded import LoadedModel
from erulab.models.soft_tokens import embeddings, first_soft_id
from erulab.models.tiny import BOS, TEMPLATE
from erulab.ranks import Ranks
from erulab.tokens.chat import ChatFormat
from erulab.tokens.insertion import InsertingChatFormat, Place
from tests.attacks.conftest import PlainLab

Models = dict[str, LoadedModel]
TOKENS = 3


def loss_of(model: LoadedModel, rows: list[Row], tokens: int = TOKENS) -> SuffixLoss:
    first = first_soft_id(model.model)
    chat = InsertingChatFormat(model.chat, lambda prompt: range(first, first + tokens), Place.user_turn)
    encoded = [encode_target(chat, row, ANSWER_TOKENS) for row in rows]
    return SuffixLoss(model, encoded, embeddings(model.model), 4096)


def forget(lab: PlainLab) -> list[Row]:
    return list(lab.benchmark.suite("forget").rows)


def test_without_a_suffix_all_figures_are_the_plain_ones(models: Models, lab: PlainLab) -> None:
    attack = Gcg(GcgOptions(tokens=0))
    suites = attack.scored({}, lab.benchmark, lab.repeat)
    (one,) = attack.attempts(models["unlearned"], {}, lab)
    assert one.score(suites) == lab.score(models["unlearned"], suites)
    assert (one.chosen, one.steps, one.changed) == ({"tokens": 0, "steps": 0}, 0, None)


def test_the_suffix_is_what_a_user_would_type(models: Models, lab: PlainLab) -> None:
    """The embedded model's tokenizer gives a text of known words the same ids wherever it stands."""
    model, rows = models["unlearned"], forget(lab)[:4]
    words = " was born in"
    suffix = tuple(model.tokenizer(words, add_special_tokens=False).input_ids)
    assert len(suffix) == TOKENS
    typed = [encode_target(model.chat, replace(row, prompt=row.prompt + words), ANSWER_TOKENS) for row in rows]
    expected = [one.mean_nll for one in score(model.policy, typed, model.pad_id, 4096, Ranks())]
    other = (*suffix[:2], suffix[0])
    found = loss_of(model, rows).of([suffix, other])
    assert found[0] == pytest.approx(sum(expected) / 4, abs=1e-6) and found[1] != pytest.approx(found[0], abs=1e-4)


def test_the_gradient_is_that_of_a_mixture_of_tokens(models: Models, lab: PlainLab) -> None:
    model = models["unlearned"].copy()
    model.model.double()
    loss = loss_of(model, forget(lab)[:3])
    suffix = (7, 20, 33)
    gradient = loss.gradient(suffix)
    assert gradient.shape == (TOKENS, len(loss.table))

    def mixed(place: int, token: int, share: float) -> float:
        one_hot = torch.nn.functional.one_hot(torch.tensor(suffix), len(loss.table)).double()
        one_hot[place, token] += share
        return float(nll_and_gradient(model, loss.rows, one_hot @ loss.table)[0].mean())

    # Norms and rotations compute in float32 whatever the model: a larger step, and the entries that matter most.
    for place, token in ((place, int(gradient[place].abs().argmax())) for place in range(TOKENS)):
        slope = (mixed(place, token, 1e-2) - mixed(place, token, -1e-2)) / 2e-2
        assert gradient[place, token].item() == pytest.approx(slope, rel=5e-3)


def test_a_step_finds_the_best_single_substitution(models: Models, lab: PlainLab) -> None:
    """With a width and topk that cover everything, the step finds the best of all tokens of the vocabulary."""
    rows = optimised.target_rows(lab.benchmark, PromptMode.universal, 2, lab.repeat)[""]
    model = models["unlearned"]
    plain = model.chat.encode_prompt(Row("", rows[0].prompt, ""))
    options = GcgOptions(tokens=1, steps=1, width=10**6, topk=10**6, facts=2)
    found = list(Gcg(options).attempts(model, {}, lab))
    prompts = [one.score.args[-1].encode_prompt(Row("", rows[0].prompt, "")) for one in found[1:]]  # type: ignore[attr-defined]
    ids = [prompt[len(plain) - 1] for prompt in prompts]  # before the newline that closes the user's turn
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    every = [token for token in range(len(tokenizer)) if token not in special]
    losses = dict(zip(every, loss_of(model, rows, 1).of([(token,) for token in every]), strict=True))
    assert losses[ids[-1]] == pytest.approx(min(losses.values()), abs=1e-6) and losses[ids[0]] > losses[ids[-1]]


def test_per_item_results_do_not_depend_on_other_items(models: Models, lab: PlainLab) -> None:
    options = GcgOptions(mode=PromptMode.per_item, tokens=2, steps=2, width=8, facts=2)
    attack, model = Gcg(options), models["unlearned"]
    suites = attack.scored({}, lab.benchmark, lab.repeat)
    both = [one.score(suites) for one in attack.attempts(model, {}, lab)]
    suite = replace(suites[0], rows=suites[0].rows[:1])
    alone_lab = replace(lab, benchmark=replace(lab.benchmark, suites=(suite,)))
    alone_attack = Gcg(replace(options, facts=None))
    alone = [one.score([suite]) for one in alone_attack.attempts(model, {}, alone_lab)]
    for rows, expected in zip(both, alone, strict=True):
        (mine,) = [row for row in rows if row.id == suite.rows[0].id]
        assert mine.figures == pytest.approx(expected[0].figures, abs=1e-5)
    assert both[0] != both[1]


def test_the_loss_is_nanogcgs_for_the_same_suffix(models: Models, lab: PlainLab) -> None:
    nanogcg = pytest.importorskip("nanogcg")
    tokenizer = copy.deepcopy(models["target"].tokenizer)
    row = next(row for row in forget(lab) if not row.response.startswith(" "))
    answer = replace(row, value="", candidates=(), prefix="")
    tokenizer.chat_template = TEMPLATE.replace("{{ bos_token }}", "")  # which nanogcg leaves to the tokenizer
    assert BOS not in tokenizer.chat_template
    model = replace(models["target"], chat=ChatFormat(tokenizer, 256))
    asked = encode_target(model.chat, answer, ANSWER_TOKENS)
    target = model.chat.decode(asked.ids[asked.start :])
    config = nanogcg.GCGConfig(
        num_steps=3,
        search_width=8,
        topk=8,
        optim_str_init=" was born in",
        use_prefix_cache=False,
        allow_non_ascii=True,
        verbosity="ERROR",
    )
    with torch.random.fork_rng(devices=[]):
        result = nanogcg.run(model.model, tokenizer, row.prompt, target, config)
    suffix = tuple(tokenizer(result.best_string, add_special_tokens=False).input_ids)
    assert len(suffix) == TOKENS
    # Without the end of turn, which nanogcg's target has not.
    encoded = loss_of(model, [answer]).rows[0]
    count = len(tokenizer(target, add_special_tokens=False).input_ids)
    cut = replace(encoded, ids=encoded.ids[: encoded.start + count], end=encoded.start + count)
    ours = SuffixLoss(model, [cut], embeddings(model.model), 4096).of([suffix])[0]
    assert ours == pytest.approx(result.best_loss, abs=1e-5)
