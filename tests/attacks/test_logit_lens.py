"""The lens against head(norm(h_l)) written out, and against plain scoring at the last layer."""

from __future__ import annotations

import pytest
import torch

from erulab.attacks.logit_lens import LogitLens, LogitLensOptions
from erulab.errors import ConfigError
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.tokens.batch import collate
from tests.attacks.conftest import PlainLab
from tests.samples import tiny


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_layer_is_norm_and_head_of_its_state(kind: str) -> None:
    model = tiny.random_model(kind)
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    batch = collate(tiny.FORGET, 0)
    for layer in (1, 2, 3):
        view = loaded.first_blocks(layer)
        nll = view.policy.token_nll(batch).split([row.tokens for row in tiny.FORGET])
        for row, found in zip(tiny.FORGET, nll, strict=True):
            seen: list[torch.Tensor] = []  # h_l: the input of block l, or of the final norm
            site = loaded.policy.norm if layer == 3 else loaded.policy.blocks[layer]
            hook = site.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
            model(input_ids=torch.tensor([row.ids]))
            hook.remove()
            logits = model.get_output_embeddings()(loaded.policy.norm(seen[0][0]))
            expected = [-logits[i - 1].log_softmax(-1)[row.ids[i]] for i in range(row.start, row.end)]
            torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)
    assert len(loaded.policy.blocks) == model.config.num_hidden_layers == 3
    own = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in own for parameter in loaded.first_blocks(2).model.parameters())


def test_the_last_layer_is_plain_scoring_and_earlier_ones_cost_less(
    lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    target, suites = models["target"], forget_suites(lab.benchmark)
    flops = []

    def spent() -> float:
        return target.ledger.spent.flops

    attempts = list(LogitLens(LogitLensOptions()).attempts(target, {}, lab))
    assert [one.chosen for one in attempts] == [{"layer": 1}, {"layer": 2}]
    assert all(one.changed is None for one in attempts)
    for attempt in attempts:
        before = spent()
        rows = attempt.score(suites)
        flops.append(spent() - before)
    before = spent()
    assert rows == lab.score(target, suites)
    assert 0 < flops[0] < flops[1] == spent() - before


def test_layers_that_a_model_lacks_are_named(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    with pytest.raises(ConfigError, match=r"attack\.logit_lens\.layers must be between 1 and 2 .* got 3"):
        next(LogitLens(LogitLensOptions(layers=[3])).attempts(models["target"], {}, lab))
    for layers in ([], [0]):
        with pytest.raises(ValueError, match="layers must be"):
            LogitLensOptions(layers=layers)
