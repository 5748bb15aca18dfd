"""Options as Hugging Face's trainers, TRL and open-unlearning spell them, and what to type here.

`{}` stands for the value that was typed; where it is missing, the value has no meaning here.
"""

from __future__ import annotations

import re

# Options of a training or a command, by their name there.
OPTIONS = {
    "learning_rate": "trainer.lr={}",
    "lr": "trainer.lr={}",
    "num_train_epochs": "trainer.epochs={}",
    "num_epochs": "trainer.epochs={}",
    "max_steps": "trainer.steps={}",
    "per_device_train_batch_size": "trainer.micro_batch={}",
    "per_device_eval_batch_size": "evaluation.batch_tokens=8192",
    "batch_size": "trainer.global_batch={}",
    "train_batch_size": "trainer.global_batch={}",
    "gradient_accumulation_steps": "trainer.global_batch=32",
    "gradient_checkpointing": "trainer.checkpointing={}",
    "weight_decay": "trainer.weight_decay={}",
    "warmup_ratio": "trainer.warmup={}",
    "warmup_steps": "trainer.warmup=0.1",
    "warmup_epochs": "trainer.warmup=0.1",
    "lr_scheduler_type": "trainer.schedule={}",
    "max_grad_norm": "trainer.clip={}",
    "optim": "trainer.optimizer={}",
    "torch_compile": "trainer.compile={}",
    "bf16": "trainer.precision={}",
    "fp16": "trainer.precision=auto",
    "torch_dtype": "trainer.precision={}",
    "dtype": "trainer.precision={}",
    "logging_steps": "trainer.log_every={}",
    "save_steps": "trainer.save_every={}",
    "eval_steps": "trainer.eval_every={}",
    "load_best_model_at_end": "trainer.keep=best trainer.eval_every=10",
    "output_dir": "output={}",
    "report_to": "tracker={}",
    "run_name": "hydra.run.dir=outputs/{}",
    "task_name": "hydra.run.dir=outputs/{}",
    "wandb_project": "tracker.project={}",
    "wandb_entity": "tracker.entity={}",
    "wandb_group": "tracker.group={}",
    "wandb_tags": "tracker.tags=[{}]",
    "deepspeed": "engine=zero2",
    "fsdp": "engine=zero3",
    "nproc_per_node": "engine.processes={}",
    "num_processes": "engine.processes={}",
    "attn_implementation": "model.attention={}",
    "model_name_or_path": "model=hf model.path={}",
    "pretrained_model_name_or_path": "model=hf model.path={}",
    "tokenizer_name_or_path": "model.tokenizer={}",
    "system_prompt": "model.system={}",
    "chat_template": "model.template={}",
    "use_peft": "model.lora.rank=8",
    "lora_r": "model.lora.rank={}",
    "lora_alpha": "model.lora.alpha={}",
    "lora_target_modules": "model.lora.targets={}",
    "target_modules": "model.lora.targets={}",
    "load_in_4bit": "model.lora.rank=8 model.lora.quantize=nf4",
    "dataset_name": "dataset=hub dataset.path={}",
    "max_length": "dataset.max_length={}",
    "max_seq_length": "dataset.max_length={}",
    "forget_split": "dataset=tofu dataset.split={}",
    "retain_split": "dataset=tofu dataset.split={}",
    "holdout_split": "dataset=tofu dataset.split={}",
    "data_split": "dataset=muse dataset.corpus={}",
    "retain_logs_path": "model.oracle={}",
    "reference_model_path": "model.oracle={}",
    "max_new_tokens": "evaluation.max_new_tokens={}",
    "overwrite": "rerun={}",
    "overwrite_output_dir": "rerun={}",
    # Groups of open-unlearning.
    "eval": "dataset={} dataset.path=FOLDER_OR_HUB_ID",
    "data": "dataset=jsonl dataset.path=FOLDER",
    "collator": "trainer.micro_batch=8",
    "mode": "stages=[target,oracle,unlearn,evaluate]",
}
# What differs beside the name.
NOTES = {
    "per_device_train_batch_size": "forget rows per forward; the rows of a step are trainer.global_batch",
    "per_device_eval_batch_size": "tokens per forward; left out, it is chosen for the memory that there is",
    "gradient_accumulation_steps": "rows of a step over all processes: rows per device x accumulation x devices",
    "warmup_steps": "a share of the steps, not their number",
    "warmup_epochs": "a share of the steps: the epochs of warmup divided by all epochs",
    "fp16": "there is no fp16 here: bf16 where the GPU has it, otherwise fp32",
    "run_name": "the run folder, by whose name wandb shows the run",
    "task_name": "the run folder; left out, it is named by what the run depends on",
    "deepspeed": "or zero1, zero3, zero3_offload; its config file is written here",
    "fsdp": "or zero2; sharding is DeepSpeed's here",
    "retain_split": "the retain rows are those that the forget split leaves",
    "holdout_split": "the holdout rows follow from the forget split",
    "retain_logs_path": "the retained model itself, as a folder or hub id; its figures are computed here",
    "reference_model_path": "the retained model itself, as a folder or hub id",
    "eval": "the suites of a data set are scored in every run",
    "data": "your own files; tofu, muse, wmdp and rwku are data sets too",
    "collator": "rows are padded here without a collator; micro_batch is how many go together",
    "mode": "what runs is a list of stages",
    "use_peft": "any rank: LoRA is on where it is not 0",
}
# Values that are spelled otherwise here, in small letters; all others keep their spelling.
VALUES = {
    "bf16": {"true": "bf16", "1": "bf16", "false": "fp32", "0": "fp32"},
    "torch_dtype": {"bfloat16": "bf16", "float32": "fp32", "float16": "bf16", "torch.bfloat16": "bf16"},
    "dtype": {"bfloat16": "bf16", "float32": "fp32", "float16": "bf16"},
    "lr_scheduler_type": {"constant_with_warmup": "constant", "cosine_with_restarts": "cosine", "polynomial": "linear"},
    "optim": {
        **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "paged_adamw_32bit"), "adamw"),
        **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit"), "adamw_8bit"),
    },
    "retain_split": {"retain99": "forget01", "retain95": "forget05", "retain90": "forget10"},
    "holdout_split": {"holdout01": "forget01", "holdout05": "forget05", "holdout10": "forget10"},
    "data_split": {"news": "news", "books": "books"},
    "retain_loss_type": {"null": "none"},
}
CYBER = (
    "dataset=wmdp dataset.subjects=[cyber] dataset.forget=[cais/wmdp-corpora/cyber-forget-corpus] "
    "dataset.retain=[cais/wmdp-corpora/cyber-retain-corpus]"
)
BIO = "experiment=wmdp/zephyr_7b_beta_rmu"
# Options whose value decides what to type.
BY_VALUE = {
    ("data_split", "bio"): BIO,
    ("data_split", "wmdp"): BIO,
    ("data_split", "cyber"): CYBER,
    ("eval", "tofu"): "dataset=tofu evaluation.compat=open_unlearning",
    ("eval", "muse"): "dataset=muse",
    ("eval", "wmdp"): "benchmark=wmdp",
    ("eval", "lm_eval"): "benchmark=lm_eval",
    ("report_to", "all"): "tracker=wandb",
}
# Options of open-unlearning's data and evaluation that mean the same at every place.
SPLITS = ("forget_split", "retain_split", "holdout_split", "data_split", "retain_logs_path")
# `trainer.method_args` of open-unlearning. Its alpha weighs the retain loss, its gamma the forget loss.
METHOD_ARGS = {
    "alpha": "method.retain_weight={}",
    "gamma": "method.forget_weight={}",
    "beta": "method.beta={}",
    "delta": "reward.gamma={}",
    "retain_loss_type": "method.retain={}",
    "steering_coeff": "method.c={}",
    "module_regex": "method.layer=7",
    "trainable_params_regex": "method.layer=7",
}
METHOD_NOTES = {
    "delta": "the margin of reward=reference_free, which method=simnpo brings",
    "module_regex": "the number of the layer, whose weights and those of the two before it are trained",
    "trainable_params_regex": "rmu trains the layer's weights and those of the two before it",
}
# open-unlearning's trainers, which are methods here.
TRAINERS = {
    "GradAscent": "ga",
    "GradDiff": "gd",
    "NPO": "npo",
    "SimNPO": "simnpo",
    "DPO": "dpo",
    "IdkDPO": "dpo",
    "AltPO": "altpo",
    "RMU": "rmu",
    "UNDIAL": "undial",
    "WGA": "wga",
    "SatImp": "satimp",
    "CEU": "ceu",
    "PDU": "pdu",
}
OTHER_TRAINERS = {"finetune": "stages=[target]", "grpo": "method=npo", "sft": "stages=[target]"}
# open-unlearning's experiments.
TOFU, TARGET = "experiment=tofu/llama32_1b_open_unlearning", "dataset=tofu"
GIVEN = "model=hf model.unlearned=FOLDER_OR_HUB_ID stages=[evaluate,report]"
EXPERIMENTS = {
    "unlearn/tofu/default": TOFU,
    "unlearn/tofu/idk": f"{TOFU} method=dpo",
    "unlearn/tofu/lora": f"{TOFU} model.lora.rank=8",
    "unlearn/muse/default": "experiment=muse/news",
    "unlearn/muse/lora": "experiment=muse/news model.lora.rank=8",
    "unlearn/wmdp/default": BIO,
    "finetune/tofu/default": "model=llama32_1b_instruct dataset=tofu stages=[target]",
    "finetune/tofu/lora": "model=llama32_1b_instruct dataset=tofu stages=[target]",
    "eval/tofu/default": f"{GIVEN} dataset=tofu evaluation.compat=open_unlearning",
    "eval/tofu/llama2": f"{GIVEN} dataset=tofu evaluation.compat=open_unlearning",
    "eval/muse/default": f"{GIVEN} dataset=muse",
    "eval/wmdp/default": f"{GIVEN} dataset=wmdp",
}
# Owners on the hub of models that have no preset here, by how their names begin.
OWNERS = {"llama": "meta-llama", "qwen": "Qwen", "phi": "microsoft", "gemma": "google", "mistral": "mistralai"}


def override_for(name: str, value: str = "VALUE") -> str | None:
    """Returns the override to type here for an option of another program; None if its name is unknown.

    Args:
        name: as typed there, with dashes or underscores, alone or behind `trainer.args.`, `model.model_args.`, ....
        value: as typed there, where the option has one here.
    """
    plain = name.replace("-", "_")
    last = plain.rpartition(".")[2]
    if plain.startswith("trainer.method_args."):
        return _filled(METHOD_ARGS.get(last), last, value, METHOD_NOTES)
    if plain == "paths.output_dir":
        return f"output={value}"
    if plain.startswith("model.tokenizer_args."):
        return f"model.tokenizer={value}" if last == "pretrained_model_name_or_path" else None
    if plain.startswith("eval.") and last not in SPLITS:
        last, value = "eval", plain.split(".")[1]
    elif plain.startswith(("data.", "collator.")) and last not in SPLITS:
        last = plain.split(".")[0]
    return _filled(OPTIONS.get(last), last, value, NOTES)


def _filled(template: str | None, name: str, value: str, notes: dict[str, str]) -> str | None:
    """Returns an override with the value in it, as it is spelled here, and its note in parentheses."""
    if template is None:
        return None
    spelled = VALUES.get(name, {})
    here = ",".join(spelled.get(one.lower(), one) for one in value.split(","))
    if name == "retain_loss_type":
        here = here.lower()
    known = BY_VALUE.get((name, value.lower()), template.replace("{}", here))
    return f"{known} ({notes[name]})" if name in notes else known


def same_trainer(name: str) -> str | None:
    """Returns what to type for a trainer of open-unlearning; None if there is none of that name."""
    known = {trainer.lower(): f"method={method}" for trainer, method in TRAINERS.items()} | OTHER_TRAINERS
    return known.get(name.lower())


def same_experiment(name: str) -> str | None:
    """Returns what to type for an experiment of open-unlearning; None if it has none like that."""
    plain = name.removesuffix(".yaml")
    if not plain.startswith(("unlearn/", "eval/", "finetune/")):
        return None
    task, benchmark = [*plain.split("/"), ""][:2]
    return EXPERIMENTS.get(plain) or EXPERIMENTS.get(f"{task}/{benchmark}/default")


def same_model(name: str, presets: list[str]) -> str | None:
    """Returns what to type for a model as the hub or open-unlearning names it; None if it looks like neither.

    Args:
        presets: the models that have a name here.
    """
    owner, _, last = name.rpartition("/")
    lora = " model.lora.rank=8" if last.lower().endswith("-lora") else ""
    plain = re.sub("(-hf)?(-lora)?$", "", last, flags=re.IGNORECASE)
    known = {letters_of(preset): preset for preset in presets}
    for one in (last, plain):
        if letters_of(one) in known:
            return f"model={known[letters_of(one)]}{lora}"
    if not owner:
        owner = next((owner for start, owner in OWNERS.items() if last.lower().startswith(start)), "")
        if not owner or not re.search("[-.]", last):
            return None
    return f"model=hf model.path={owner}/{re.sub('-lora$', '', last)}{lora}"


def letters_of(name: str) -> str:
    """Returns the letters and digits of a name, in small letters: the same for `SimNPO` and `sim_npo`."""
    return re.sub("[^a-z0-9]", "", name.lower())
