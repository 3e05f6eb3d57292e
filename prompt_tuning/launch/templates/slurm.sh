#!/bin/bash
{# https://slurm.schedmd.com/sbatch.html. One process per node; JAX finds the others through SLURM.
   The processes get SIGTERM before the time limit and save; the script then requeues itself, as
   SLURM does with a job that was preempted or whose node failed. A sweep is a job array. -#}
#SBATCH --job-name={{ name }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
{% if gpus_per_node is not none %}
#SBATCH --gpus-per-node={{ gpus_per_node }}
{% endif %}
{% if cpus_per_task is not none %}
#SBATCH --cpus-per-task={{ cpus_per_task }}
{% endif %}
#SBATCH --time={{ time }}
{% if partition is not none %}
#SBATCH --partition={{ partition }}
{% endif %}
{% if account is not none %}
#SBATCH --account={{ account }}
{% endif %}
{% if members %}
#SBATCH --array=0-{{ members | length - 1 }}{{ "%" ~ at_once if at_once }}
{% endif %}
{# Without "B:" the signal goes to the processes, not to this script, which then sees them end. #}
#SBATCH --signal=TERM@{{ seconds_to_save }}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={{ "%x-%A_%a.log" if members else "%x-%j.log" }}

set -euo pipefail
{{ preparation }}
{% if members %}
case "$SLURM_ARRAY_TASK_ID" in
{% for flags in members %}
  {{ loop.index0 }}) set -- {{ flags }} ;;
{% endfor %}
esac

{% endif %}
status=0
srun --kill-on-bad-exit=1 {{ command }}{{ ' "$@"' if members }} || status=$?
# {{ stopped_and_saved }}: stopped, and everything is saved. The same script resumes.
if [ "$status" -eq {{ stopped_and_saved }} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
