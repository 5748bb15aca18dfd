#!/usr/bin/env bash
# Makes .venv, installs the requirements and runs the embedded default, which ends with a robustness verdict.
# Further arguments go to the run: bash launch/quickstart.sh method=npo
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment requirements.txt
exec .venv/bin/python -m erulab.run "$@"
