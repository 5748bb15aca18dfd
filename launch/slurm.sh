#!/usr/bin/env bash
# One run, or one sweep, over all nodes of a Slurm job, one task per node, one process per GPU. Type in the checkout:
#   sbatch --nodes=2 --gpus-per-node=8 launch/slurm.sh method=eru engine=zero3
# Options before the script are for sbatch, those behind it for the run. The nodes must share the checkout, output and
# cache. The same command continues a run that the time limit stopped.
#SBATCH --job-name=erulab
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=USR1@300
#SBATCH --output=erulab-%j.log
set -euo pipefail

fail() {
    echo "erulab: $1" >&2
    exit "$2"
}

[ -n "${SLURM_JOB_ID:-}" ] || fail "launch/slurm.sh is for Slurm: sbatch launch/slurm.sh ARGUMENTS" 2
# sbatch runs a copy of this file: the checkout is where the command was typed.
cd "$SLURM_SUBMIT_DIR"
python="${PYTHON:-.venv/bin/python}"
[ -x "$python" ] || fail "no $python in $PWD; type sbatch in the checkout after launch/quickstart.sh, or set PYTHON" 4

if [ "$SLURM_NNODES" -gt 1 ]; then
    read -r host < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    # Another job on the same node gets another port.
    set -- "$@" "engine.nodes=$SLURM_NNODES" "engine.rendezvous=$host:$((20000 + SLURM_JOB_ID % 20000))"
fi
# erulab ends all hosts when one fails; srun would kill them before they could report why. srun does not take over the
# number of cores per task by itself.
exec srun --nodes="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    --kill-on-bad-exit=0 "$python" -m erulab.run "$@"
