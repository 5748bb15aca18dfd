"""The checks that need the data: what would stop a later stage is found before hours of learning.

`config/rules.py` has the checks that need only the command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from erulab.config import data_rules, depth_rules
from erulab.costs.families import is_known
from erulab.costs.shapes import Adapters, ModelShape
from erulab.costs.trained import weight_shapes
from erulab.data.stored_rows import row_column
from erulab.errors import ConfigError, DataError, IntegrityFault
from erulab.evaluation.alternatives import check_questions
from erulab.evaluation.judging.verdicts import judged_rows
from erulab.evaluation.measures import measures, summaries
from erulab.evaluation.suites import selected_suites
from erulab.methods.base import GradientMethod, StandIn, forget_tokens_of, gradient_method
from erulab.models import folders
from erulab.models.lora import check_targets, no_trained_adapter
from erulab.options import SavedModel, Stage
from erulab.registry import methods
from erulab.stages.attack_plan import plan_attacks
from erulab.stages.context import Context
from erulab.stages.external import external_content
from erulab.stages.halves import check_half
from erulab.stages.learn import learned_rows
from erulab.stages.step_judge import check_kept_step
from erulab.training import few_steps
from erulab.training.assembly import encode_unlearning_rows
from erulab.typed import did_you_mean


def check_evaluation(context: Context) -> None:
    """Checks that every suite that is named exists, that there is one, and that the model can read every row.

    Raises:
        DataError: there is nothing to measure, or the model cannot read a row, which the message names.
        ConfigError: `evaluation.suites` names a suite that no benchmark has, or a figure is not registered.
    """
    parts = [part.fitted for part in context.benchmarks]
    for name in context.config.evaluation.suites or ():
        if not any(selected_suites(benchmark, [name]) for benchmark in parts):
            known = [suite.name for suite in parts[0].suites]
            known += [f"{benchmark.name}/{suite.name}" for benchmark in parts[1:] for suite in benchmark.suites]
            raise ConfigError(
                f"evaluation.suites={name}: no such suite{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    if not any(benchmark.suites for benchmark in parts):
        raise DataError(f"data set {parts[0].name} has nothing to measure{parts[0].lacking}; name a folder that has it")
    for benchmark in parts:
        for suite in benchmark.suites:
            measures.function_of(suite.measure, f"suite {suite.name}")
        for summary in benchmark.summaries:
            summaries.function_of(summary, f"benchmark {benchmark.name}")
    for part in context.benchmarks:
        _ = part.identity_of_selected  # reads all rows


def check_external(context: Context) -> None:
    """Checks that every benchmark of another program can be asked, by loading its questions.

    Raises:
        ConfigError, DataError: as `ExternalBenchmark.content`.
    """
    if Stage.evaluate in context.config.stages:
        for benchmark in context.external_benchmarks:
            external_content(context, benchmark)


def check_target(context: Context) -> None:
    """Checks that the data set has rows for the target, unless it is given or not needed.

    Raises:
        DataError: it has none, because it asks for knowledge that pretrained models have.
    """
    needed = Stage.target in context.config.stages or context.unlearns
    if context.config.model.target is None and needed and not learned_rows(context, "target"):
        raise DataError(f"{_lacks_rows(context, 'target')}; name the model with model.target=FOLDER_OR_HUB_ID")


def check_oracle(context: Context) -> None:
    """Checks that the data set has rows for the oracle, unless it is given or not needed, and that given ones differ.

    Raises:
        DataError: it has none.
        ConfigError: two given oracles are the same model, which would make their spread too small.
    """
    known: dict[str, str] = {}
    for path in context.config.model.oracles:
        same = known.setdefault(context.loader.given(path).key, path)
        if same != path:
            raise ConfigError(f"model.oracle: {same} and {path} are the same model; name each oracle once")
    method = methods.build(context.config.method)
    retrains = context.unlearns and isinstance(method, StandIn) and method.stands_for == "oracle"
    needed = Stage.oracle in context.config.stages or context.attacks or retrains
    if context.config.model.oracle is None and needed and not learned_rows(context, "oracle"):
        raise DataError(
            f"{_lacks_rows(context, 'oracle')}; leave out what needs one (stages oracle and attack, method=retrain): "
            "type stages=[unlearn,evaluate,report], or name one with model.oracle=FOLDER_OR_HUB_ID"
        )


def check_unlearning(context: Context) -> None:
    """Checks that the data set and the model have what method, adversary, retain term and adapters need.

    Raises:
        DataError: the data set lacks forget rows, or what the method's pairs need.
        ConfigError: an option names a layer that the model has not, adapters cannot be kept for several requests, or
            there are no retain rows for the retain term or the adversary.
    """
    if not context.unlearns:
        return
    config, benchmark = context.config, context.benchmark
    lora = config.model.lora
    if lora.rank and lora.targets is not None and (shape := _known_shape(context)) is not None:
        check_targets(lora.targets, shape.adaptable)
    method = methods.build(config.method)
    if isinstance(method, StandIn):
        return
    if not benchmark.forget:
        raise DataError(
            f"method={config.method.name} needs forget rows, and data set {benchmark.name} has none"
            f"{benchmark.lacking}; name a folder that has them"
        )
    if config.artifacts.model is SavedModel.adapter and any(one.continues for one in benchmark.requests[1:]):
        raise ConfigError(
            "artifacts.model=adapter keeps one adapter to put on the target, and of several requests each is put on "
            "the model before it; type artifacts.model=full"
        )
    descends = gradient_method(config.method)
    if descends is not None:
        depth = folders.depth_of(context.source.architecture(benchmark))
        if depth is not None:
            depth_rules.check_layers(config, depth)
        if lora.rank and (shape := _known_shape(context)) is not None:
            check_adapters(descends, lora.adapters, shape)
        if descends.needs.generated is not None:
            check_questions(benchmark.forget)
    if not benchmark.retain:
        data_rules.check_without_retain(config, benchmark.lacking)
    tokens = forget_tokens_of(config.method)
    encode_unlearning_rows(context.encoder, benchmark, descends or method, config.seed, tokens)


def check_adapters(method: GradientMethod, adapters: Adapters, shape: ModelShape) -> None:
    """Checks that the method trains some of the adapters; its layers are known to be in the model.

    Raises:
        ConfigError: it trains none.
    """
    if not any(method.trains(name, shape.layers) for name in weight_shapes(shape, adapters)):
        raise no_trained_adapter(method.options.name)


def check_judge(context: Context) -> None:
    """Checks that the data set has responses for a judge to read.

    Raises:
        DataError: it has none.
    """
    evaluation, selected = context.config.evaluation, context.data.selected
    if evaluation.judge.is_named and not judged_rows(selected, evaluation):
        raise DataError(
            f"evaluation.judge reads responses to questions, and data set {selected.name} has no question among its "
            "evaluated rows that a response is generated to; leave the judge out"
        )


def check_attacks(context: Context) -> None:
    """Checks that the attacks can be run and judged on this data set.

    Raises:
        DataError: one cannot, or none is applicable to this data set.
    """
    if context.attacks:
        plan_attacks(context)


STAGE_CHECKS: Sequence[Callable[[Context], None]] = (
    check_evaluation,
    check_external,
    check_target,
    check_oracle,
    check_unlearning,
    check_kept_step,
    check_half,
    check_judge,
    check_attacks,
)


def run_stage_checks(context: Context) -> None:
    """Runs STAGE_CHECKS in order; the user sees the first that fails.

    Raises:
        DataError, ConfigError: one line that says what is missing and what to type.
    """
    for check in STAGE_CHECKS:
        check(context)


def check_given_model(context: Context, path: str) -> None:
    """Checks that a checkpoint that the user names can read the data set.

    Raises:
        IntegrityFault: its tokenizer does not know the data set's words, so every figure would be of other texts.
        DataError: a row that the run's own model reads is too long for this one.
    """
    chat = context.loader.chat_of(path)
    if chat.identity() != context.chat.identity():
        for part in context.benchmarks:
            try:
                part.read_by(chat)
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
    rows = context.encoder_of(chat).encode_unchecked(context.data.raw.forget)
    unknown = sum(chat.unknown_id is not None and chat.unknown_id in row.ids for row in rows)
    if unknown:
        raise IntegrityFault(
            f"{path} cannot read {unknown} of {len(rows)} forget rows (words unknown to its tokenizer); "
            "give a model that was trained on this data set"
        )


def notes_on_unknown_words(context: Context) -> list[str]:
    """Returns a note on each benchmark with evaluated rows that hold words unknown to the tokenizer."""
    notes = []
    for part in context.benchmarks:
        unknown, count = part.unknown_words
        if unknown:
            notes.append(
                f"{part.fitted.name}: {unknown} of {count} evaluated rows hold words that the tokenizer does not know; "
                "their figures are of other texts"
            )
    return notes


def notes_on_end_of_turn(context: Context) -> list[str]:
    """Returns a note if the template's end of turn is no token, so that responses are closed by another."""
    return [context.chat.note_on_end] if context.chat.note_on_end else []


def notes_on_few_steps(context: Context) -> list[str]:
    """Returns a note on each training of this run that takes too few steps to say anything about a method."""
    config, benchmark = context.config, context.benchmark
    given = {"target": config.model.target, "oracle": config.model.oracle}
    learned = {
        role: int(row_column(learned_rows(context, role), "exposures").sum())
        for role, path in given.items()
        if path is None and Stage[role] in config.stages
    }
    trains = context.unlearns and not isinstance(methods.build(config.method), StandIn)
    requests = [len(one.forget) for one in benchmark.requests] or [len(benchmark.forget)]
    return few_steps.notes_on_few_steps(config, learned, requests if trains else ())


def no_such_model(role: str) -> DataError:
    """Returns the error about a model that a stage needs and no stage makes; says how to get or name one."""
    stage = {"unlearned": Stage.unlearn.value}.get(role, role)
    score_only = "; a checkpoint that is only to be scored is model.unlearned=" if role == "target" else ""
    return DataError(
        f"no {role} has been learned with these settings; add {stage} to stages, or name one with model.{role}="
        f"{score_only}"
    )


def _known_shape(context: Context) -> ModelShape | None:
    architecture = context.source.architecture(context.benchmark)
    return ModelShape.from_config(architecture) if is_known(str(architecture.get("model_type"))) else None


def _lacks_rows(context: Context, role: str) -> str:
    return f"data set {context.benchmark.name} has no rows for the {role} to learn{context.benchmark.lacking}"
