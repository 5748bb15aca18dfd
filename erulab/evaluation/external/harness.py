"""benchmark=lm_eval: hands the models of a run over to lm-evaluation-harness, and takes its results.

Source: github.com/EleutherAI/lm-evaluation-harness; its Python interface is `lm_eval.simple_evaluate`.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from erulab.errors import ConfigError, EnvironmentFault
from erulab.evaluation.external.base import ExternalBenchmark, ExternalScores
from erulab.evaluation.external.harness_results import external_scores
from erulab.evaluation.external.harness_tasks import check_names, content_of, hash_folder, load_tasks, task_manager
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import benchmarks

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel

OLDEST = (0, 4, 13)  # the first version with the task index that is asked here
INSTALL = "type pip install 'erulab[lm_eval]'"
# Draws for standard errors of metrics that are no means (perplexity, bleu); the harness's own 100,000 take minutes.
BOOTSTRAP = 1000


@dataclass
class LmEvalOptions:
    name: str = "lm_eval"
    tasks: list[str] = field(default_factory=list)  # tasks, groups or tags of the harness, such as [gsm8k,mmlu]
    include_path: Optional[str] = None  # a folder with task files of your own; Python code that they name is run
    limit: Optional[int] = None  # the first questions of every task; null: all
    num_fewshot: Optional[int] = None  # examples per prompt, except in tasks whose file says 0; null: the task's own
    batch_size: int = 8  # prompts per forward
    # put the model's chat template and model.system around prompts; false: running text, as in most published figures
    apply_chat_template: bool = False

    def __post_init__(self) -> None:
        once = len(set(self.tasks)) == len(self.tasks) and all(self.tasks)
        require(once, "tasks", "names of tasks, each once", f"[{','.join(self.tasks)}]")
        require_positive("limit", self.limit)
        require_not_negative("num_fewshot", self.num_fewshot)
        require_positive("batch_size", self.batch_size)


@benchmarks.register(
    "lm_eval", LmEvalOptions, paper="lm-evaluation-harness", needs="the package lm_eval; names of tasks"
)
class LmEval(ExternalBenchmark):
    """Tasks of lm-evaluation-harness, asked and scored by the harness itself."""

    name = "lm_eval"

    def __init__(self, options: LmEvalOptions) -> None:
        self.options = options

    def validate(self) -> None:
        options = self.options
        if not options.tasks:
            raise ConfigError("benchmark=lm_eval needs names of tasks; type benchmark.lm_eval.tasks=[gsm8k,arc_easy]")
        if options.include_path is not None and not Path(options.include_path).is_dir():
            raise ConfigError(
                f"benchmark.lm_eval.include_path={options.include_path} is no folder; name one that holds task files "
                "(.yaml), or leave it out"
            )
        if importlib.util.find_spec("lm_eval") is None:
            raise EnvironmentFault(
                f"benchmark=lm_eval needs lm-evaluation-harness, which is not installed here; {INSTALL}, or leave "
                "lm_eval out of benchmark"
            )
        version = metadata.version("lm_eval")
        numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
        if numbers < OLDEST:
            raise EnvironmentFault(
                f"benchmark=lm_eval needs lm-evaluation-harness {'.'.join(map(str, OLDEST))} or newer, and here is "
                f"{version}; {INSTALL}"
            )

    def identity(self, cache: Path) -> dict[str, Any]:
        folder = self.options.include_path
        return {
            "lm_eval": metadata.version("lm_eval"),
            "tasks": self.options.tasks,
            "include_path": None if folder is None else hash_folder(Path(folder)),
            "limit": self.options.limit,
            "num_fewshot": self.options.num_fewshot,
            "apply_chat_template": self.options.apply_chat_template,
        }

    def content(self) -> dict[str, Any]:
        return self._content

    @cached_property
    def _content(self) -> dict[str, Any]:
        _silence_warnings()
        manager = task_manager(self.options.include_path)
        check_names(manager, self.options.tasks)
        tasks = load_tasks(manager, self.options.tasks)
        return {name: content_of(task, self.options.num_fewshot) for name, task in tasks.items()}

    def score(self, loaded: LoadedModel, system: str | None) -> ExternalScores:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        _silence_warnings()
        options, chat = self.options, self.options.apply_chat_template
        model = HFLM(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=options.batch_size,
            max_length=loaded.chat.limit(None),
            trust_remote_code=False,
        )
        results = lm_eval.simple_evaluate(
            model,
            tasks=list(options.tasks),
            task_manager=task_manager(options.include_path),
            num_fewshot=options.num_fewshot,
            limit=options.limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=False,  # questions and responses stay in the harness
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            system_instruction=system if chat else None,
        )
        return external_scores(results)


def _silence_warnings() -> None:
    """Keeps the harness's warnings off the console: they are about ways of starting it that erulab does not use."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
