"""Abliteration: nothing is written along the direction any more, and a planted direction is found and removed."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from erulab.adversaries.hooks import residual_writers
from erulab.attacks.abliterate import Abliterate, AbliterateOptions, remove_direction
from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.halves import validation_half
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.tokens.batch import collate
from tests.attacks.conftest import PlainLab
from tests.samples import tiny

BATCH = collate(tiny.FORGET, 0)


def unit(width: int) -> torch.Tensor:
    vector = torch.randn(width, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return vector / vector.norm()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_nothing_is_written_along_the_direction(kind: str) -> None:
    model = tiny.random_model(kind)
    policy, r = LoadedModel(model, None, None).policy, unit(tiny.WIDTH)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    along: list[float] = []

    def watch(module: torch.nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        along.append(float((states @ r).abs().max()))

    with ExitStack() as stack, torch.no_grad():
        for module in residual_writers(policy):
            stack.callback(module.register_forward_hook(watch).remove)
        policy(BATCH)
        assert len(along) == 6 and min(along) > 1e-3
        along.clear()
        remove_direction(policy, r)
        policy(BATCH)
        assert len(along) == 6 and max(along) < 1e-12


def test_with_the_embedding_no_state_has_the_direction(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    attack = Abliterate(AbliterateOptions(layers=[2], embedding=True))
    here = replace(lab, models=models)
    (attempt,) = attack.attempts(models["unlearned"], {}, here)
    assert attempt.changed is not None and attempt.chosen == {"layer": 2}
    # The direction, by itself: mean difference of h_2 at the last prompt token.
    half = validation_half(lab.benchmark, 0)
    rows = [row for name in ("forget", "forget_heldout") for row in lab.benchmark.suite(name).rows if row.fact in half]

    def mean_state(loaded: LoadedModel) -> torch.Tensor:
        found = []
        for row in rows:
            ids = torch.tensor([loaded.chat.encode_prompt(row)])
            seen: list[torch.Tensor] = []
            hook = loaded.policy.norm.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
            loaded.model(input_ids=ids)
            hook.remove()
            found.append(seen[0][0, -1])
        return torch.stack(found).mean(0)

    with torch.no_grad():
        r = mean_state(models["unlearned"]) - mean_state(models["target"])
        r = r / r.norm()
        assert float((mean_state(models["unlearned"]) @ r).abs()) > 0.1
        assert float((mean_state(attempt.changed) @ r).abs()) < 1e-4


def test_the_target_itself_is_left_as_it_is(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    here = replace(lab, models=models)
    for attempt in Abliterate(AbliterateOptions()).attempts(models["target"], {}, here):
        assert attempt.changed is not None
        before = models["target"].model.state_dict()
        assert all(torch.equal(weight, before[name]) for name, weight in attempt.changed.model.state_dict().items())


def test_a_planted_direction_is_found_and_removed(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    """The target writes nothing along r and the model does in one block; removing r restores the target."""
    target = models["target"].copy()
    target.model.double()
    r = unit(target.model.config.hidden_size)
    remove_direction(target.policy, r)
    hiding = target.copy()
    block = hiding.policy.blocks[0]
    with torch.no_grad():
        reads = torch.randn(block.mlp.down_proj.in_features, generator=torch.Generator().manual_seed(9)).double()
        block.mlp.down_proj.weight.add_(torch.outer(r, reads))
    here = replace(lab, models={"target": target})
    first, last = Abliterate(AbliterateOptions()).attempts(hiding, {}, here)
    assert first.changed is not None and last.changed is not None
    for name, weight in target.model.state_dict().items():
        torch.testing.assert_close(first.changed.model.state_dict()[name], weight, rtol=0, atol=1e-9)
    # At the last layer block 1 has added its answer to r: another direction, which takes something else out.
    assert not torch.allclose(
        last.changed.policy.blocks[0].mlp.down_proj.weight, target.policy.blocks[0].mlp.down_proj.weight, atol=1e-3
    )


def test_a_layout_that_is_not_known_is_refused() -> None:
    model = copy.deepcopy(tiny.random_model())
    policy = LoadedModel(model, None, None).policy  # type: ignore[arg-type]
    policy.blocks[1].mlp.out = policy.blocks[1].mlp.down_proj
    del policy.blocks[1].mlp.down_proj
    with pytest.raises(TypeError, match="abliterate does not know LlamaMLP"):
        remove_direction(policy, unit(tiny.WIDTH))


def test_rows_that_a_direction_is_computed_from_are_not_reported(lab: PlainLab) -> None:
    """With one layer nothing is chosen, so the attack itself leaves out the validation facts."""
    half = validation_half(lab.benchmark, 0)

    def facts(layers: list[int]) -> set[str]:
        suites = Abliterate(AbliterateOptions(layers=layers)).scored({}, lab.benchmark, Repeat(0))
        return {row.fact for suite in suites for row in suite.rows}

    assert half and not facts([1]) & half and half < facts([1, 2])


def test_a_target_with_another_tokenizer_is_refused(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    options = FictitiousOptions(world=8, forget_authors=2, retain_authors=2, unrehearsed_authors=1, unseen_authors=1)
    other = TinyModel(TinyOptions(layers=2, width=48, heads=2)).load(FictitiousWorld(options).load(0), seed=3)
    attack = Abliterate(AbliterateOptions())
    with pytest.raises(Inapplicable, match="another tokenizer"):
        next(attack.attempts(models["unlearned"], {}, replace(lab, models={**models, "target": other})))
