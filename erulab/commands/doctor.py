"""`python -m erulab doctor [OVERRIDES]`: what this machine and the files of a run lack, each with the fix to type."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from erulab.commands.arguments import ended_with_line, new_parser
from erulab.commands.findings import Finding, Health
from erulab.commands.machine_findings import find_hub, machine_findings
from erulab.errors import EnvironmentFault
from erulab.redaction import redacted, redacted_text
from erulab.reporting.escape import visible

MARKS = {Health.ok: "ok", Health.note: "note", Health.missing: "MISSING"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was found; returns the exit code: 4 where something is missing, 2 for overrides that do not compose.

    Without overrides only the machine is looked at; with them, the files and packages of that run too.
    """
    return ended_with_line(lambda: _examine(arguments))


def _examine(arguments: Sequence[str] | None) -> int:
    parser = new_parser("doctor", "Says what this machine, and the files of a run, lack, and how to mend it.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for erulab run: one run, no sweep")
    parser.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    options = parser.parse_intermixed_args(arguments)
    hub = find_hub()
    found = [*machine_findings(), hub]
    if options.overrides:
        from erulab.commands.run_findings import run_findings  # Hydra takes a second to load

        found += run_findings(options.overrides, hub_answers=hub.health is Health.ok)
    if options.json:
        sys.stdout.write(json.dumps([redacted(asdict(one)) for one in found], indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{redacted_text(visible(line))}\n" for one in found for line in _lines(one)))
        counts = Counter(one.health for one in found)
        print(f"{counts[Health.missing]} missing, {counts[Health.note]} to know, {counts[Health.ok]} ok")
    return EnvironmentFault.code if any(one.health is Health.missing for one in found) else 0


def _lines(one: Finding) -> list[str]:
    lines = [f"{MARKS[one.health]:<8} {one.what:<24} {one.found}".rstrip()]
    return [*lines, f"{'':<33} -> {one.fix}"] if one.fix else lines
