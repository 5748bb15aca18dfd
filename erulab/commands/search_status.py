"""How far a search of settings is: its trials by state, and the best so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erulab.errors import IntegrityFault

JOURNAL = "journal.log"  # erulab.tuning.search writes it; naming it here spares the import of Optuna
FIGURES = ("knowledge_left", "utility_kept")  # noted with each trial
WORDS = {"COMPLETE": "done", "FAIL": "without figures", "RUNNING": "running, or left by a process that died"}


def search_status(folder: Path) -> dict[str, Any]:
    """Returns what `--json` prints of a search.

    Args:
        folder: the search folder, `<output>/tuning/<key>`.
    Raises:
        IntegrityFault: the journal is damaged.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from erulab.tuning.search import TYPED

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    except (ValueError, KeyError) as error:
        raise IntegrityFault(f"{folder / JOURNAL} is damaged ({error})") from None
    trials = [trial for study in studies for trial in study.get_trials(deepcopy=False)]
    alone = studies[0] if len(studies) == 1 and len(studies[0].directions) == 1 else None
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    best = min(done, key=lambda trial: trial.values[0]) if alone is not None and done else None
    return {
        "search": str(folder),
        "states": {state: count for state in WORDS if (count := sum(one.state.name == state for one in trials))},
        "best": None if best is None else {"trial": best.number + 1, "typed": best.user_attrs[TYPED], **_figures(best)},
        "experiments": sorted(str(file) for file in (folder / "conf" / "experiment").glob("tuned_*.yaml")),
    }


def search_lines(found: dict[str, Any]) -> list[str]:
    """Returns the status of a search for people."""
    counts = ", ".join(f"{count} {WORDS[state]}" for state, count in found["states"].items())
    lines = [f"search {found['search']}: trials: {counts or 'none yet'}"]
    if (best := found["best"]) is not None:
        figures = ", ".join(f"{name.replace('_', ' ')} {best[name]:.3f}" for name in FIGURES if best[name] is not None)
        lines.append(f"best so far: trial {best['trial']}: {' '.join(best['typed'])} ({figures}, on validation facts)")
    lines += [f"written: {file}" for file in found["experiments"]]
    return [*lines, "the command of the search, typed again, goes on; a larger hydra.sweeper.trials continues it"]


def _figures(trial: Any) -> dict[str, float | None]:
    return {name: trial.user_attrs.get(name) for name in FIGURES}
