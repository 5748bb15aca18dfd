"""The command `erulab` (also `python -m erulab`): hands over to the command that its first argument names.

Imports nothing but the standard library before it knows which, so that its help answers at once.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import erulab
from erulab.command import prepare_command

# name -> module, what it does
COMMANDS = {
    "run": ("erulab.run", "unlearn, evaluate, attack and report: one run or a sweep"),
    "list": ("erulab.list", "methods, attacks, data sets, ... and the options of each"),
    "plan": ("erulab.plan", "memory, FLOPs and hours of a run, before it starts"),
    "ls": ("erulab.commands.ls", "list runs: state, verdict, figures, what differs"),
    "status": ("erulab.commands.status", "how far a sweep, run or search is, and how to go on"),
    "doctor": ("erulab.commands.doctor", "what this machine and a run's files lack, with the fix"),
    "purge": ("erulab.commands.purge", "remove texts, caches and models of a run"),
    "push": ("erulab.commands.push", "upload a run's model and its card to the Hugging Face hub"),
    "report": ("erulab.report", "compare run and sweep folders"),
    "evaluate": ("erulab.evaluate", "TOFU's figures from published evaluation logs"),
    "study": ("erulab.study.__main__", "compare methods after the same tuning"),
    "bench": ("erulab.bench.__main__", "speed and memory on this machine"),
}
COMPLETION_FLAGS = ("-sc", "--shell-completion")


def cli() -> int:
    """Runs the console script."""
    prepare_command()
    return main()


def main() -> int:
    """Runs the command that was typed; returns its exit code, 2 where there is no such command."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"erulab {erulab.__version__}")
        return 0
    # `python -m` puts the current folder on the path, where plugins=[my_module] looks; a console script does not.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if name in COMPLETION_FLAGS:
        return complete([name, *arguments])
    if name not in COMMANDS:
        print(f"erulab: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = import_module(COMMANDS[name][0])
    if name == "run":
        sys.argv = ["erulab", *arguments]  # Hydra reads it
        code: int = module.cli()
    else:
        code = module.main(arguments)
    return code


def help_text() -> str:
    """Returns the commands, one line each."""
    lines = [f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "erulab removes specific knowledge from a language model, and tests that it is gone and stays gone.",
            "",
            "usage: erulab COMMAND ...            the same as: python -m erulab COMMAND ...",
            "",
            *lines,
            "",
            "erulab COMMAND --help says more. Completion of erulab run in bash and zsh:",
            '  eval "$(erulab -sc install=bash)"',
        ]
    )


def complete(arguments: list[str]) -> int:
    """Answers a shell: the commands itself; groups, choices and options of `erulab run` through Hydra."""
    typed = os.environ.get("COMP_LINE", "").lstrip()
    if arguments[1:] == ["query=bash"]:
        program, *words = typed.split()
        if len(words) + typed[-1].isspace() < 2:  # the command itself is not finished
            print(*COMMANDS)
            return 0
        if words[0] != "run":
            return 0
        rest = typed.removeprefix(program).lstrip().removeprefix("run")
        os.environ["COMP_LINE"] = f"erulab {rest.lstrip()}"
    sys.argv = ["erulab", *arguments]
    code: int = import_module("erulab.run").cli()
    return code


if __name__ == "__main__":
    sys.exit(cli())
