#!/bin/bash
# Workers of a tuner run, as an array of jobs. Every line may be changed; submit it with:
#   sbatch --parsable --output=/shared/run/logs/slurm-%A_%a.log /shared/run/job.sh
#SBATCH --job-name=tuner
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=6
#SBATCH --gres=gpu:1
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=normal
#SBATCH --constraint=a100|h100
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time limit the workers stop after what they have saved, and the job queues again.
#SBATCH --signal=B:USR1@120
#SBATCH --mail-type=END

run=/shared/run
if [ ! -f "$run/config.yaml" ]; then
    echo "The run folder $run is not visible on $(hostname). Put --run on a file system that all nodes share." >&2
    exit 4
fi
module load cuda/12.4 || exit 4
module load python || exit 4
source '/shared/my env/bin/activate' || exit 4
cd /shared || exit 4
export TUNER_JOB="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"

requeue=no
trap 'told=yes; requeue=yes; kill -TERM "$tuner"' USR1
trap 'told=yes; kill -TERM "$tuner"' TERM
python -m tuner job --first "$((100 + 100 * SLURM_ARRAY_TASK_ID))" -- "$run" &
tuner=$!
# A signal ends `wait` before the program, and with a code of its own.
told=yes
while [ "$told" = yes ]; do
    told=no
    code=0
    wait "$tuner" || code=$?
done
if [ "$requeue" = yes ] && [ "$code" -ne 0 ]; then
    scontrol requeue "$TUNER_JOB"
fi
exit "$code"
