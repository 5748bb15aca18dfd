"""Names of Hugging Face's trainers and of open-unlearning: one line says what to type, and that composes."""

from __future__ import annotations

import re
import shlex

import pytest

from erulab.config import other_names
from erulab.config.compose import CONF, compose_config
from erulab.config.messages import USER_ERRORS, error_line
from erulab.config.other_names import OPTIONS, TRAINERS, override_for, same_experiment, same_model
from erulab.errors import ErulabError

PAGE = CONF / "from_open_unlearning" / "README.md"
TOFU = "experiment=tofu/llama32_1b_open_unlearning"
CYBER = "dataset.forget=[cais/wmdp-corpora/cyber-forget-corpus] dataset.retain=[cais/wmdp-corpora/cyber-retain-corpus]"
# What people type, and what they are told to type.
TYPED = {
    # TrainingArguments
    "learning_rate=1e-4": "trainer.lr=1e-4",
    "+learning_rate=1e-4": "trainer.lr=1e-4",
    "trainer.learning_rate=1e-4": "trainer.lr=1e-4",
    "num_train_epochs=3": "trainer.epochs=3",
    "max_steps=100": "trainer.steps=100",
    "per_device_train_batch_size=4": "trainer.micro_batch=4",
    "gradient_accumulation_steps=8": "trainer.global_batch=32",
    "weight_decay=0.1": "trainer.weight_decay=0.1",
    "warmup_ratio=0.1": "trainer.warmup=0.1",
    "lr_scheduler_type=cosine": "trainer.schedule=cosine",
    "lr_scheduler_type=constant_with_warmup": "trainer.schedule=constant",
    "optim=paged_adamw_32bit": "trainer.optimizer=adamw",
    "optim=adafactor": "trainer.optimizer=adafactor",
    "bf16=True": "trainer.precision=bf16",
    "bf16=false": "trainer.precision=fp32",
    "gradient_checkpointing=true": "trainer.checkpointing=true",
    "report_to=none": "tracker=none",
    "output_dir=out": "output=out",
    "run_name=mine": "hydra.run.dir=outputs/mine",
    "deepspeed=ds_config.json": "engine=zero2",
    "model_name_or_path=gpt2": "model=hf model.path=gpt2",
    "lora_r=16": "model.lora.rank=16",
    # open-unlearning
    "trainer=NPO": "method=npo",
    "trainer=GradAscent,GradDiff": "method=ga,gd",
    "trainer=finetune": "stages=[target]",
    "trainer.args.learning_rate=1e-5": "trainer.lr=1e-5",
    "trainer.args.warmup_epochs=1.0": "trainer.warmup=0.1",
    "trainer.method_args.beta=0.5": "method.beta=0.5",
    "trainer.method_args.alpha=2": "method.retain_weight=2",
    "trainer.method_args.retain_loss_type=KL": "method.retain=kl",
    "trainer.method_args.steering_coeff=10": "method.c=10",
    "method=NPO": "method=npo",
    "method=GradAscent": "method=ga",
    "method=sim_npo": "method=simnpo",
    "attack=Relearn": "attack=relearn",
    "attack=[Relearn,quantize]": "attack=[relearn,quantize]",
    "model=Llama-3.2-1B-Instruct": "model=llama32_1b_instruct",
    "model=meta-llama/Llama-3.2-1B-Instruct": "model=llama32_1b_instruct",
    "model=Llama-2-7b-chat-hf": "model=llama2_7b_chat",
    "model=Qwen2.5-3B-Instruct-lora": "model=hf model.path=Qwen/Qwen2.5-3B-Instruct model.lora.rank=8",
    "model=Llama-2-7b-hf": "model=hf model.path=meta-llama/Llama-2-7b-hf",
    "model=EleutherAI/pythia-1b": "model=hf model.path=EleutherAI/pythia-1b",
    "model.model_args.pretrained_model_name_or_path=a/b": "model=hf model.path=a/b",
    "model.model_args.attn_implementation=sdpa": "model.attention=sdpa",
    "model.tokenizer_args.pretrained_model_name_or_path=a/b": "model.tokenizer=a/b",
    "experiment=unlearn/tofu/default": TOFU,
    "experiment=unlearn/tofu/default.yaml": TOFU,
    "experiment=unlearn/muse/default": "experiment=muse/news",
    "forget_split=forget05": "dataset=tofu dataset.split=forget05",
    "retain_split=retain95": "dataset=tofu dataset.split=forget05",
    "data_split=Books": "dataset=muse dataset.corpus=books",
    "data_split=cyber": f"dataset=wmdp dataset.subjects=[cyber] {CYBER}",
    "retain_logs_path=saves/retain": "model.oracle=saves/retain",
    "task_name=first": "hydra.run.dir=outputs/first",
    "paths.output_dir=out": "output=out",
    "eval=tofu": "dataset=tofu evaluation.compat=open_unlearning",
    "eval.tofu.forget_split=forget10": "dataset=tofu dataset.split=forget10",
    "data.forget=MUSE_forget": "dataset=jsonl dataset.path=FOLDER",
}
GIVEN = ["model=hf", "model.path=x/y"]


def told(typed: str) -> str:
    """Returns the line that the composition of an override ends with."""
    try:
        compose_config([typed])
    except USER_ERRORS as error:
        line = str(error) if isinstance(error, ErulabError) else error_line(error)
        assert "\n" not in line
        return line
    raise AssertionError(f"{typed} composes")


@pytest.mark.parametrize(("typed", "here"), TYPED.items(), ids=[typed[:40] for typed in TYPED])
def test_one_line_says_what_to_type(typed: str, here: str) -> None:
    """FAULTS 40: what stands behind `type`, up to a note in parentheses."""
    line = told(typed)
    assert re.sub(r" \(.*\)$", "", line.rpartition("; type ")[2]) == here, line


def suggestions() -> list[str]:
    """Returns every line of the tables with a value that fits, without its note."""
    values = {
        "lr_scheduler_type": "linear",
        **dict.fromkeys(
            ("bf16", "gradient_checkpointing", "torch_compile", "overwrite", "overwrite_output_dir"), "true"
        ),
        **{"torch_dtype": "bfloat16", "dtype": "bfloat16", "optim": "adamw_torch", "attn_implementation": "eager"},
        **{"lora_target_modules": "[q_proj]", "target_modules": "[q_proj]", "report_to": "wandb", "eval": "muse"},
        **{"forget_split": "forget01", "retain_split": "retain99", "holdout_split": "holdout01", "data_split": "News"},
        **{
            "retain_logs_path": "x/y",
            "reference_model_path": "x/y",
            "warmup_ratio": "0.2",
            "retain_loss_type": "NLL",
            "chat_template": "plain",
        },
    }
    names = [*OPTIONS, *(f"trainer.method_args.{name}" for name in other_names.METHOD_ARGS)]
    lines = [override_for(name, values.get(name.rpartition(".")[2], "2")) or "" for name in names]
    lines += [*other_names.BY_VALUE.values(), *other_names.EXPERIMENTS.values(), *other_names.OTHER_TRAINERS.values()]
    lines += [f"method={method}" for method in TRAINERS.values()]
    return sorted({re.sub(r" \(.*\)$", "", line) for line in lines})


def test_everything_that_is_suggested_composes() -> None:
    """FAULTS 40."""
    faults = []
    for line in suggestions():
        overrides = [*shlex.split(line)]
        if not any(one.startswith(("model=", "experiment=")) for one in overrides):
            overrides = [*GIVEN, *overrides]
        method = {"method.c": "rmu", "method.layer": "rmu", "method.beta": "npo", "reward.gamma": "simnpo"}
        method_of = next((name for key, name in method.items() if f"{key}=" in line), None)
        overrides += [] if method_of is None else [f"method={method_of}"]
        overrides += ["dataset=jsonl", "dataset.path=x"] if "dataset.max_length" in line else []
        try:
            compose_config(overrides)
        except USER_ERRORS as error:
            faults.append(f"{line}: {error}")
    assert not faults, faults


def test_a_new_name_of_the_users_own_is_not_taken_for_another_programs() -> None:
    assert same_model("my_model", ["tiny"]) is None
    assert same_experiment("tofu/mine") is None
    assert override_for("temperature") is None
    assert "did you mean" in told("evaluation.rowz=3")


def test_a_part_that_has_the_option_itself_is_meant() -> None:
    assert told("target.learning_rate=1e-3") == "unknown key target.learning_rate; type target.lr=VALUE"
    assert told("model.attn_implementation=eager").endswith("type model.attention=VALUE")
    assert told("method.alpha=2").endswith("type method.retain_weight=VALUE")


def test_the_page_for_people_from_open_unlearning_quotes_what_is_said() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    quoted = [line for block in blocks for line in block.splitlines()]
    typed = [i for i, line in enumerate(quoted) if line.startswith("$ python -m erulab.run ")]
    assert len(typed) == 2
    for i in typed:
        assert told(quoted[i].split()[-1]) == quoted[i + 1]
