#!/usr/bin/env bash
# Run a diffugen command on all nodes of a SLURM allocation:
#   sbatch slurm.sh diffugen generate CONFIG --out SHARED/DIR --set executor.kind=ray executor.address=auto
# A job that ran out of time resumes when it is submitted again. The output folder and the models must have the same
# paths on all nodes, which share the home folder. Outside SLURM the script runs on this machine alone.
#SBATCH --job-name=diffugen
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null # in ~/.ray, which the nodes share
nodes=${SLURM_JOB_NUM_NODES:-1}
port=$((20000 + ${SLURM_JOB_ID:-$$} % 20000))
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    launch=(srun --nodes="$nodes" --ntasks="$nodes" --kill-on-bad-exit=1)
else
    head=127.0.0.1
    launch=()
fi
# Starts Ray on every node, runs the command on the first one, and stops Ray.
"${launch[@]}" ray symmetric-run --address "$head:$port" --min-nodes "$nodes" --num-cpus "${SLURM_CPUS_PER_TASK:-$(nproc)}" -- "$@"
