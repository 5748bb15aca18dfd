#!/usr/bin/env bash
# From nothing to a robustness verdict: makes .venv, installs the requirements, runs the main job.
# Further arguments go to the run: bash launch/quickstart.sh method=npo
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment requirements.txt
exec .venv/bin/python -m erulab.run "$@"
