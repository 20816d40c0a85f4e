#!/bin/bash
# A SLURM array whose jobs all join one study: sbatch slurm_array.sh
#
# Each job runs the ordinary command. They share the work through the database alone, so jobs may
# start, end and be requeued at any time. SLURM sends SIGTERM before the time limit: running trials
# are saved, handed back, and another job (or the next submission of this file) goes on with them.
# The B: matters: without it SLURM signals the steps that srun starts, and not this script, which
# lrsearch takes the place of (exec).
#SBATCH --job-name=lrsearch
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue

# postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, from a file that only you can read: in the
# environment, since whoever lists the processes of a node reads their command lines
LRSEARCH_STORAGE=$(cat "$HOME/.lrsearch-storage")
export LRSEARCH_STORAGE

exec lrsearch run \
  --task cifar10 --data-dir "$SLURM_SUBMIT_DIR/data" \
  --trials 500 \
  --out "$SLURM_SUBMIT_DIR/lrsearch-results"
