"""The commands answer at once: none loads torch, and the help of none takes a second and a half of this machine."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from erulab.config.compose import CONF

# Modules that are there only once their package was really loaded, not only named by a lazy loader.
HEAVY = ("torch._C", "transformers", "pandas", "matplotlib", "pyarrow.lib", "datasets.config", "wandb")


@pytest.mark.parametrize("name", ["ls", "status", "doctor", "purge"])
def test_help(name: str) -> None:
    code = f"""
import sys
from erulab.__main__ import main
sys.argv = ["erulab", {name!r}, "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in {HEAVY} if name in sys.modules])
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.stdout.splitlines()[-1] == "[]", answer.stderr
    assert f"python -m erulab {name}" in answer.stdout
    # Processor time, because other tests run at the same time.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name} --help took {seconds:.2f} s")
    assert seconds < 6  # 0.4 s on a machine that does nothing else
