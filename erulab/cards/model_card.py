"""The card of an unlearned model, as the Hugging Face hub shows it: made of the run folder's files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from erulab.cards.base import base_source, has_licence_file, hub_id, licence_of, shared_command, without_folders
from erulab.redaction import redacted_text
from erulab.reporting.attack_tables import attack_table
from erulab.reporting.escape import markdown, markdown_block
from erulab.reporting.load import RunResult
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.settings import flat_settings, setting_text
from erulab.reporting.tables import key_table
from erulab.reporting.verdict import judge_run

STAND_INS = {"none": "not unlearned", "retrain": "trained without the forget set"}
# Parts of the config whose every option the card shows.
SHOWN = ("method", "reward", "adversary", "trainer", "target", "dataset")
PACKAGES = ("python", "torch", "transformers", "tokenizers", "safetensors", "peft", "deepspeed", "bitsandbytes")
MUSE = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}  # dataset.path=null


def model_card(run: RunResult, audits: Sequence[Mapping[str, Any]], *, adapter: bool) -> str:
    """Returns the card as Markdown with YAML at its beginning.

    It holds no text of a row, no sample and no folder of this machine.

    Args:
        run: the run folder.
        audits: the contents of its audit files, in the order of the requests; empty where nothing was unlearned.
        adapter: whether the folder holds LoRA adapters alone.
    """
    parts = [
        _title(run),
        _verdict(run),
        "## What it is",
        _what(run, audits, adapter=adapter),
        "## Figures",
        _figures(run),
        "## Attacks",
        _attacks(run),
        "## How it was made",
        _settings(run),
        "## Limits",
        _limits(run, audits),
        "## Repeat it",
        _repeat(run, audits),
        "## Licence",
        _licence(run),
    ]
    text = f"---\n{_front_matter(run, adapter=adapter)}---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"
    return redacted_text(text, commits=True)


def base_name(run: RunResult) -> str:
    """Returns the base model's hub id, or the name of its folder or embedded model."""
    source = base_source(run.config)
    if source is None:
        return run.choice("model")
    return hub_id(source) or source.rstrip("/").rpartition("/")[2]


def _front_matter(run: RunResult, *, adapter: bool) -> str:
    source = base_source(run.config)
    base = hub_id(source)
    dataset = run.config.get("dataset") or {}
    path = dataset.get("path") or (MUSE.get(str(dataset.get("corpus"))) if dataset.get("name") == "muse" else None)
    collapsed = judge_run(run).collapsed
    front = {
        **licence_of(source),
        **({"base_model": base} if base else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        **({"datasets": [hub_id(path)]} if hub_id(path) else {}),
        "tags": ["machine-unlearning", "erulab", run.choice("method"), *(["collapsed"] if collapsed else [])],
    }
    text: str = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return text


def _title(run: RunResult) -> str:
    method, dataset = run.choice("method"), run.choice("dataset")
    made = STAND_INS.get(method, f"unlearned with {method} on {dataset}")
    return f"# {markdown(base_name(run))}, {markdown(made)}"


def _verdict(run: RunResult) -> str:
    if not run.scores and not run.attacks:
        return "Neither scored nor attacked: nothing is known about what this model has forgotten."
    first, *others = judge_run(run).sentences
    lines = [f"- **{markdown(first)}**", *(f"- {markdown(sentence)}" for sentence in others)]
    return "\n".join(lines) + (
        "\n\nKnowledge left is the share of what unlearning should remove that is still there: 1 as in the model "
        "before unlearning (the target), 0 as in a model that never saw the forget set (the oracle)."
    )


def _what(run: RunResult, audits: Sequence[Mapping[str, Any]], *, adapter: bool) -> str:
    model = run.config.get("model") or {}
    given, method = model.get("target"), run.choice("method")
    learned = "a given checkpoint" if given else "the base model, trained on the data set by erulab"
    rows = [
        ("base model", base_name(run)),
        ("before unlearning", learned),
        ("method", f"{method}, reward {run.choice('reward')}, adversary {run.choice('adversary')}"),
        ("trained weights", _trained(model)),
        ("files", "LoRA adapters, to be put on the model before unlearning" if adapter else "the whole model"),
    ]
    for audit in audits:
        asked = audit["asked"]
        which = f"{asked['dataset']['name']}{' ' + asked['request'] if asked['request'] else ''}"
        forget = asked["forget"]
        rows.append((f"forget set {which}", f"{forget['rows']} rows, SHA-256 {forget['sha256']}"))
        rows.append((f"data set {asked['dataset']['name']}", f"SHA-256 {asked['dataset']['sha256']}"))
    for name, digest in (audits[-1]["done"]["after"]["files"] if audits else {}).items():
        if name.endswith(".safetensors"):
            rows.append((name, f"SHA-256 {digest}"))
    return _pairs(("", ""), list(dict.fromkeys(rows)))


def _trained(model: Mapping[str, Any]) -> str:
    lora = model.get("lora") or {}
    rank = lora.get("rank")
    return f"LoRA of rank {rank}, alpha {lora.get('alpha')}" if rank else "all"


def _figures(run: RunResult) -> str:
    if not run.scores:
        return "No model was scored."
    return f"{key_table(run).render('md')}\nWith 95 % intervals; in parentheses the number of rows."


def _attacks(run: RunResult) -> str:
    if not run.attacks:
        return "No attack was run, so nothing is known about robustness."
    return (
        f"{_without_paths(attack_table(run).without_empty_columns()).render('md')}\n"
        "A setting that is not valid destroys the model before unlearning too, and says nothing about robustness."
    )


def _settings(run: RunResult) -> str:
    config = {key: _name_first(run.config[key]) for key in SHOWN if key in run.config}
    lora = (run.config.get("model") or {}).get("lora") or {}
    config["model"] = {"lora": lora} if lora.get("rank") else {}
    flat = flat_settings({key: value for key, value in config.items() if value} | {"seed": run.config.get("seed")})
    return _pairs(("option", "value"), [(key, without_folders(setting_text(value))) for key, value in flat.items()])


def _name_first(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in sorted(options, key=lambda key: key != "name")}


def _limits(run: RunResult, audits: Sequence[Mapping[str, Any]]) -> str:
    limits = [limit for audit in audits[-1:] for limit in audit["limits"]]
    limits += ["a model is robust only against attacks that were run; a stronger one may bring knowledge back"]
    if run.choice("model") == "tiny":
        limits += ["the vocabulary of its tokenizer is made of the words of the data set, those to forget included"]
    return "\n".join(f"- {markdown(limit)}" for limit in limits)


def _repeat(run: RunResult, audits: Sequence[Mapping[str, Any]]) -> str:
    by = audits[-1]["by"] if audits else {}
    git = by.get("git") or run.env.get("git")
    dirty = " with changes that were not committed" if by.get("dirty") else ""
    versions = [f"erulab {by.get('erulab') or run.env.get('erulab') or 'of an unknown version'}"]
    versions += [f"commit {git}{dirty}"] if git else []
    versions += [f"{name} {run.env[name]}" for name in PACKAGES if run.env.get(name)]
    command = markdown_block(shared_command(str(run.env.get("command") or "")))
    return f"{command}\n\nMade with {markdown(', '.join(versions))}."


def _licence(run: RunResult) -> str:
    source = base_source(run.config)
    found = licence_of(source)
    base = markdown(base_name(run))
    if "license" in found:
        more = f" ({', '.join(found[key] for key in ('license_name', 'license_link') if key in found)})"
        named = markdown(found["license"]) + (markdown(more) if len(found) > 1 else "")
        return f"The base model {base} states the licence {named}, which holds for this model too."
    if source is None:
        return "The weights were drawn at random and trained by erulab: no base model's licence holds for them."
    where = "in a file LICENSE of its folder" if has_licence_file(source) else "on its page"
    return f"The licence of the base model {base} holds for this model too; read it {where}."


def _pairs(headings: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    table = Table(headings, tuple((Cell(key), Cell(value)) for key, value in rows))
    return table.render("md")


def _without_paths(table: Table) -> Table:
    rows = tuple(tuple(_cut(cell) for cell in row) for row in table.rows)
    return Table(table.headings, rows, table.notes)


def _cut(cell: Cell) -> Cell:
    return cell if cell.is_figure else Cell(without_folders(cell.text))
