"""`python -m erulab.plan`: what it prints, what it refuses, and that it loads neither torch nor the hub."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from erulab import plan
from erulab.config.compose import CONF
from erulab.models.presets import PRESETS
from tests.costs.families import CONFIGS

SEVEN_B = ["method=eru", "model=llama2_7b_chat", "engine=zero3", "engine.processes=8", "dataset=tofu"]
Planned = Callable[..., dict[str, Any]]


@pytest.fixture
def planned(capsys: pytest.CaptureFixture[str]) -> Planned:
    """The plan of a command line, from its JSON."""

    def type_in(*arguments: str) -> dict[str, Any]:
        code = plan.main([*arguments, "--format", "json"])
        answer = capsys.readouterr()
        assert code == 0, answer.err
        found: dict[str, Any] = json.loads(answer.out)
        return found

    return type_in


def test_no_torch_no_hub_no_weights() -> None:
    code = """
    import sys
    from erulab import plan
    codes = [plan.main(words.split()) for words in (
        "method=eru model=llama2_7b_chat engine=zero3 engine.processes=8",
        "method=dpo adversary=latent_pgd reward=elastic dataset=tofu model=phi_1_5",
        "model=smollm2_135m method=kl --device cpu",
        "model=tiny",
    )]
    heavy = ("torch._C", "transformers", "huggingface_hub", "numpy._core")
    print(codes, [name for name in heavy if name in sys.modules])
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=CONF.parent, capture_output=True, text=True
    )
    assert answer.stdout.splitlines()[-1] == "[0, 0, 0, 0] []", answer.stderr


def test_seven_billion_parameters_over_eight_gpus(planned: Planned) -> None:
    found = planned(*SEVEN_B)
    n = 6_738_415_616
    assert found["parameters"] == n
    memory = found["memory"]["unlearning"]
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (2 * n / 8, 2 * n / 8, 12 * n / 8)
    assert found["fits"] and memory["peak"] < found["device"]["usable"]
    # Six FLOPs a parameter and computed token, the usual rule: attention adds, the head at few positions takes away.
    step, data = found["step_flops"], found["data"]
    tokens = 32 * (data["forget"]["tokens"] + data["retain"]["tokens"])
    assert step["backward"] == 2 * step["forward"]
    assert 1.0 < (step["forward"] + step["backward"]) / (6 * n * tokens) < 1.25
    unlearn = found["stages"][-1]
    assert unlearn["steps"] == 7  # 40 rows, 5 epochs, 32 a step
    assert unlearn["flops"] == pytest.approx(7 * step["total"])
    assert unlearn["hours"] == pytest.approx(unlearn["flops"] / (8 * 989.4e12 * 0.4) / 3600)


def test_too_few_steps_are_told_before_they_are_made(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    """The warning's own remedy gives enough steps; nothing is said of a run that has them."""
    words = ["model=smollm2_135m", "dataset=tofu", "dataset.split=forget01"]
    found = planned(*words)
    (unlearning,) = found["warnings"]
    assert unlearning == (
        "unlearning takes 7 optimizer steps (40 rows x 5 epochs in batches of 32); fewer than 10 say little about a "
        "method; type trainer.epochs=8 or trainer.global_batch=20"
    )
    for remedy in ("trainer.epochs=8", "trainer.global_batch=20", "method=none", "trainer.steps=10"):
        assert planned(*words, remedy)["warnings"] == []
    assert "type target.epochs=" in planned(*words, "target.epochs=0.05")["warnings"][0]
    assert planned(*words, "stages=[evaluate]", "model.unlearned=nobody/nothing")["warnings"] == []
    assert plan.main([*words, "trainer.steps=3"]) == 0
    text = capsys.readouterr().out
    assert "\nwarning: unlearning takes 3 optimizer steps (trainer.steps=3); fewer than 10" in text
    assert "type trainer.steps=10 or more\n" in text


def test_what_the_user_knows_better(planned: Planned) -> None:
    found = planned(*SEVEN_B, "--rows", "400", "--tokens", "200", "--supervised", "50", "--utilization", "0.2")
    assert (found["data"]["forget"]["rows"], found["data"]["forget"]["tokens"]) == (400, 200)
    assert found["stages"][-1]["steps"] == 63
    assert found["data"]["basis"].startswith("--rows 400, --tokens 200, --supervised 50 as given")
    longer = planned(*SEVEN_B, "--rows", "400", "--tokens", "400", "--supervised", "50", "--utilization", "0.2")
    assert longer["stages"][-1]["hours"] > 1.5 * found["stages"][-1]["hours"]
    assert longer["memory"]["unlearning"]["activations"] > found["memory"]["unlearning"]["activations"]


def test_zero3_never_loads_a_folders_model_whole(planned: Planned) -> None:
    """But it does what a package carries, and other stages do."""
    n = 6_738_415_616
    three, two = planned(*SEVEN_B), planned(*SEVEN_B, "engine=zero2")
    for training in ("learning", "unlearning"):
        assert three["memory"][training]["loading"] < 2 * n / 8 + 1e9
        assert two["memory"][training]["loading"] == 4 * n
    packed = planned("model=smollm2_135m", "engine=zero3", "dataset=tofu")
    assert packed["memory"]["learning"]["loading"] == 4 * packed["parameters"]
    assert packed["memory"]["unlearning"]["loading"] < 4 * packed["parameters"]
    # kl's frozen copy is sharded too, and with adapters there is none.
    kl = planned("method=kl", *SEVEN_B[1:], "adversary=none", "reward=none")["memory"]["unlearning"]
    assert kl["reference"] == 2 * n / 8


def test_adapters_are_planned_for_unlearning_alone(planned: Planned) -> None:
    whole, lora = planned(*SEVEN_B), planned(*SEVEN_B, "model.lora.rank=16")
    assert lora["memory"]["learning"] == whole["memory"]["learning"]
    trained = 16 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert lora["memory"]["unlearning"]["optimizer"] == 12 * trained / 8
    assert lora["memory"]["unlearning"]["gradients"] == 2 * trained / 8
    assert lora["step_flops"]["backward"] < 0.7 * whole["step_flops"]["backward"]
    kl = planned("method=kl", *SEVEN_B[1:], "adversary=none", "reward=none", "model.lora.rank=16")
    assert kl["memory"]["unlearning"]["reference"] == 0


def test_hosts_multiply_processes(planned: Planned) -> None:
    one = planned(*SEVEN_B)
    two = planned(*SEVEN_B[:-2], "engine.processes=4", "engine.nodes=2", "engine.rendezvous=a:1", "dataset=tofu")
    for part in ("memory", "stages", "hours"):
        assert one[part] == two[part]


def test_offloading_under_zero3_takes_weights_off_the_device(planned: Planned) -> None:
    cpu, disk = (
        planned(*SEVEN_B, f"engine.offload={place}", *more)["memory"]["unlearning"]
        for place, more in (("cpu", []), ("nvme", ["engine.nvme_path=/tmp"]))
    )
    assert cpu["weights"] == cpu["optimizer"] == disk["weights"] == 0
    assert cpu["host"] - disk["host"] == pytest.approx(12 * 6_738_415_616 / 8)
    small = planned(*SEVEN_B, "--device", "rtx4090")["smallest"]
    assert "engine=zero3_offload" in small["overrides"]


EIGHT_B = ["method=npo", "model=llama31_8b_instruct", "dataset=tofu", "model.target=a/b", "stages=[unlearn]"]
SMALL = ["trainer.micro_batch=1", "trainer.checkpointing=true"]
NF4 = ["model.lora.rank=16", "model.lora.quantize=nf4"]


def test_optimizers_are_planned_for_unlearning(planned: Planned) -> None:
    """Bytes per parameter times 8,030,261,248 parameters; bitsandbytes has a float32 scale per 256 codes."""
    n = 8_030_261_248
    state = {
        name: planned(*EIGHT_B, f"trainer.optimizer={name}")["memory"]["unlearning"]["optimizer"]
        for name in ("adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd")
    }
    assert state["adamw"] == 8 * n and state["sgd"] == state["paged_adamw_8bit"] == 0
    assert state["adamw_8bit"] == pytest.approx(2 * (1 + 4 / 256) * n, rel=1e-3)
    assert state["adafactor"] < 0.01 * n
    both = planned(*EIGHT_B[:3], "trainer.optimizer=sgd")["memory"]
    assert both["learning"]["optimizer"] == 8 * n and both["unlearning"]["optimizer"] == 0


def test_4_bit_weights_are_planned(planned: Planned) -> None:
    """224 matrices of 6,979,321,856 weights in 4 bits and an eighth; all else in float32, the head cast too."""
    found = planned(*EIGHT_B, *NF4)["memory"]["unlearning"]
    rounded, all_weights, head, adapters = 6_979_321_856, 8_030_261_248, 128_256 * 4096, 41_943_040
    bits = rounded * (0.5 + 1 / 64 + 4 / 64 / 256)
    assert found["weights"] == pytest.approx(bits + 4 * (all_weights - rounded + adapters) + 2 * head)
    assert found["optimizer"] == 8 * adapters
    assert found["loading"] < found["host"] == 4 * all_weights


def test_three_cards_are_named(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(*EIGHT_B)["fits_on"] == {"24": False, "40": False, "80": False}
    assert planned(*EIGHT_B, *NF4, *SMALL)["fits_on"] == {"24": True, "40": True, "80": True}
    # Scoring holds 32 GB of float32 weights, whatever trained.
    scored = planned(*EIGHT_B[:-1], "stages=[unlearn,evaluate]", *NF4, *SMALL)
    assert scored["fits_on"] == {"24": False, "40": True, "80": True}
    assert plan.main([*EIGHT_B[:-1], "stages=[unlearn,evaluate]", *NF4, *SMALL]) == 0
    line = "fits on     24 GB NO, 40 GB yes, 80 GB yes; scoring holds 32.1 GB of float32 weights\n"
    assert line in capsys.readouterr().out


def test_no_engine_is_proposed_that_cannot_take_the_optimizer_or_the_weights(planned: Planned) -> None:
    assert planned(*EIGHT_B, "trainer.optimizer=adafactor")["smallest"] is None
    smallest = planned(*EIGHT_B, *NF4, "--device", "rtx4090")["smallest"]["overrides"]
    assert smallest[0] == "engine=local" and "trainer.checkpointing=true" in smallest


def test_a_budget_of_tokens_takes_less_at_once(planned: Planned) -> None:
    whole, cut = planned(*SEVEN_B), planned(*SEVEN_B, "trainer.micro_tokens=512")
    assert (whole["micro_batch"], cut["micro_batch"]) == (4, 1)  # the longest row has 165 tokens, and retain rows too
    for training in ("learning", "unlearning"):
        assert cut["memory"][training]["activations"] < whole["memory"][training]["activations"]
    assert cut["step_flops"]["forward"] <= whole["step_flops"]["forward"]


def test_the_smallest_engine_that_fits_is_planned_to_fit(planned: Planned) -> None:
    for device in ("a100-40gb", "rtx4090", "v100-32gb"):
        smallest = planned(*SEVEN_B, "--device", device)["smallest"]
        if smallest is None:
            continue
        engine_free = ["method=eru", "model=llama2_7b_chat", "dataset=tofu"]
        found = planned(*engine_free, *smallest["overrides"], "--device", device)
        assert found["fits"]
        assert max(part["peak"] for part in found["memory"].values()) == smallest["peak"]
    assert planned("model=tiny")["smallest"]["overrides"] == ["engine=local"]


def test_a_device_without_bf16_computes_in_float32(planned: Planned) -> None:
    assert planned(*SEVEN_B, "--device", "v100-32gb")["computes_in"] == "fp32"
    assert planned("model=phi_1_5", "dataset=tofu")["computes_in"] == "autocast"
    assert planned("model=phi_1_5", "dataset=tofu", "engine=zero1")["computes_in"] == "bf16"


@pytest.mark.parametrize(("method", "stages"), [("none", []), ("retrain", []), ("npo", ["reference", "unlearn"])])
def test_only_what_is_trained_is_counted(method: str, stages: list[str], planned: Planned) -> None:
    found = planned("model=phi_1_5", "dataset=tofu", f"method={method}", "model.target=a/b", "model.oracle=a/c")
    assert [stage["name"] for stage in found["stages"]] == stages
    assert (found["step_flops"] is None) is (not stages)
    assert list(found["memory"]) == (["unlearning"] if stages else [])


def test_further_oracles_are_learned_too(planned: Planned) -> None:
    one, three = (planned("model=phi_1_5", "dataset=tofu", f"target.oracle_seeds={n}") for n in (1, 3))
    cost = {n: {stage["name"]: stage["flops"] for stage in found["stages"]} for n, found in ((1, one), (3, three))}
    assert cost[3] == {**cost[1], "oracle": pytest.approx(3 * cost[1]["oracle"])}


def test_a_local_folder_needs_no_weights(planned: Planned, tmp_path: Path) -> None:
    AutoConfig.for_model(**CONFIGS["qwen2"]).save_pretrained(tmp_path)
    found = planned("model=hf", f"model.path={tmp_path}")
    assert found["parameters"] == planned("model=hf", f"model.path={tmp_path}", "method=kl")["parameters"] > 100_000
    hub_id = PRESETS["zephyr_7b_beta"].hub_id
    by_path, by_name = planned("model=hf", f"model.path={hub_id}"), planned("model=zephyr_7b_beta")
    assert by_path["parameters"] == by_name["parameters"]


def test_the_table_is_aligned_and_says_what_it_assumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(SEVEN_B) == 0
    text = capsys.readouterr().out
    assert "6,738,415,616 parameters" in text and "assumed 1.4 tokens per word" in text
    assert "not counted: scoring, generation and attacks" in text
    table = text[text.index("             learning") :].split("\n\n")[0].splitlines()
    assert len(table) == 10 and len({len(line) for line in table}) == 1
    assert plan.main(["model=phi_1_5", "dataset=tofu", "method=none", "model.target=a/b", "model.oracle=a/c"]) == 0
    assert "this run trains nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "told"),
    [("task_vector", "the training of method=task_vector"), ("undo", "the distillation of method=undo")],
)
def test_what_a_plan_leaves_out_is_said(method: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([f"method={method}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(told)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--devise", "h100"], ["--devise"]),
        (["--device", "h1000"], ["--device", "h100-80gb", "'h1000'"]),
        (["--utilization", "1.5"], ["--utilization", "at most 1", "1.5"]),
        (["--utilization", "nan"], ["--utilization", "at most 1", "nan"]),
        (["--utilization", "fast"], ["--utilization", "number", "'fast'"]),
        (["--rows", "0"], ["--rows", "whole number > 0", "0"]),
        (["--rows", "1.5"], ["--rows", "whole number", "'1.5'"]),
        (["--format", "xml"], ["--format", "json"]),
        (["--tokens", "10", "--supervised", "20"], ["--supervised 20", "10 tokens"]),
        (["method"], ["'method'", "KEY=VALUE"]),
        (["method=npoo"], ["method='npoo'", "did you mean npo"]),
        (["method.beta=-1"], ["method.beta must be > 0"]),
        (["method=npo,ga"], ["method=npo,ga"]),
        (["sweep=methods"], ["sweep=methods", "one run"]),
        (["trainer.global_batch=30", "engine=zero2", "engine.processes=4"], ["30 is not 7 x n x 4"]),
        (["model=hf", "model.path=owner/unheard-of"], ["owner/unheard-of", "config.json", "model.path=FOLDER"]),
        (["model=tiny", "dataset=tofu"], ["model=tiny", "dataset.path=FOLDER"]),
        (["trainer.precision=bf16", "--device", "v100-32gb"], ["trainer.precision=bf16", "v100-32gb"]),
        (["method=rmu", "method.layer=9"], ["method.layer must be a block of the model, 0 to 3, got 9"]),
        (["method=undo", "method@method.first=rmu", "method.first.layer=9"], ["method.first.layer must be a block"]),
        (["method=circuit_breaker", "method.layers=[]"], ["method.layers must be a list of 1 to 4", "got []"]),
        (["method=task_vector", "trainer.combine=gru"], ["no retain term; type trainer.combine=sum"]),
        (["method=advnpo"], ["adversary.layer must be between 0 and 3", "got 4"]),
        (["adversary.sites=all_writes", "adversary.layer=9"], ["adversary.layer must be between 0 and 4", "got 9"]),
        (["trainer.optimizer=adafactor", "engine.processes=2"], ["engine=zero2 cannot cut", "engine=zero0"]),
    ],
)
def test_what_cannot_be_planned_takes_one_line(
    typed: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(typed) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.count("\n") == 1 and "Traceback" not in answer.err
    assert all(word in answer.err for word in words), answer.err


def test_a_folder_without_config_is_the_environments_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["model=hf", f"model.path={tmp_path}"]) == 4
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert plan.main(["model=hf", f"model.path={tmp_path}"]) == 2
    assert "'mamba' is not known" in capsys.readouterr().err
