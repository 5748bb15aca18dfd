"""Options as Hugging Face's trainers and open-unlearning spell them, and what to type here."""

from __future__ import annotations

# Name there -> key here, or what to type if that is more than a key.
OPTIONS = {
    "learning_rate": "trainer.lr",
    "lr": "trainer.lr",
    "num_train_epochs": "trainer.epochs",
    "num_epochs": "trainer.epochs",
    "max_steps": "trainer.steps",
    "per_device_train_batch_size": "trainer.micro_batch",
    "per_device_eval_batch_size": "evaluation.batch_tokens",
    "batch_size": "trainer.global_batch",
    "gradient_accumulation_steps": "trainer.global_batch",
    "gradient_checkpointing": "trainer.checkpointing",
    "weight_decay": "trainer.weight_decay",
    "warmup_ratio": "trainer.warmup",
    "warmup_steps": "trainer.warmup",
    "warmup_epochs": "trainer.warmup",
    "lr_scheduler_type": "trainer.schedule",
    "max_grad_norm": "trainer.clip",
    "optim": "trainer.optimizer",
    "torch_compile": "trainer.compile",
    "bf16": "trainer.precision=bf16",
    "fp16": "trainer.precision=bf16",
    "torch_dtype": "trainer.precision",
    "logging_steps": "trainer.log_every",
    "save_steps": "trainer.save_every",
    "eval_steps": "trainer.eval_every",
    "output_dir": "output",
    "report_to": "tracker",
    "run_name": "tracker.group",
    "task_name": "tracker.group",
    "wandb_project": "tracker.project",
    "wandb_entity": "tracker.entity",
    "wandb_group": "tracker.group",
    "wandb_tags": "tracker.tags",
    "deepspeed": "engine=zero2",
    "nproc_per_node": "engine.processes",
    "num_processes": "engine.processes",
    "attn_implementation": "model.attention",
    "model_name_or_path": "model=hf model.path",
    "pretrained_model_name_or_path": "model=hf model.path",
    "tokenizer_name_or_path": "model.tokenizer",
    "lora_r": "model.lora.rank",
    "lora_alpha": "model.lora.alpha",
    "target_modules": "model.lora.targets",
    "dataset_name": "dataset",
    "forget_split": "dataset=tofu dataset.split",
    "retain_split": "dataset=tofu dataset.split",
    "holdout_split": "dataset=tofu dataset.split",
    "retain_logs_path": "model.oracle",
    "max_new_tokens": "evaluation.max_new_tokens",
    "overwrite_output_dir": "rerun",
}
# open-unlearning's trainers, which are methods here.
TRAINERS = {
    "GradAscent": "ga",
    "GradDiff": "gd",
    "NPO": "npo",
    "SimNPO": "simnpo",
    "DPO": "dpo",
    "RMU": "rmu",
    "UNDIAL": "undial",
    "WGA": "wga",
    "SatImp": "satimp",
    "CEU": "ceu",
    "PDU": "pdu",
}


def override_for(name: str, value: str = "VALUE") -> str | None:
    """Returns the override to type here for an option of another program; None if its name is unknown.

    Args:
        name: as typed there, with dashes or underscores, alone or behind `trainer.args.`, `model.model_args.`, ....
        value: as typed there, where the option has one here.
    """
    same = OPTIONS.get(name.rpartition(".")[2].replace("-", "_"))
    if same is None or "=" in same.split()[-1]:
        return same
    return f"{same}={value}"


def same_trainer(name: str) -> str | None:
    """Returns `method=NAME` for a trainer of open-unlearning; None if there is none of that name."""
    known = {trainer.lower(): method for trainer, method in TRAINERS.items()}
    method = known.get(name.lower())
    return None if method is None else f"method={method}"
