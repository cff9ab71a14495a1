#!/usr/bin/env bash
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={{ num_cpu }}
#SBATCH --mem={{ ram_gb }}G
{%- if num_gpu %}
#SBATCH --gres=gpu:{{ num_gpu }}
{%- endif %}
{%- if walltime %}
#SBATCH --time={{ walltime }}
{%- endif %}
#SBATCH --output={{ job_log_path_abs }}
{%- for option in ("partition", "account", "qos", "constraint", "reservation") if vars.get(option) %}
#SBATCH --{{ option }}={{ vars[option] }}
{%- endfor %}

# exec: the batch shell becomes the agent, so that Slurm's warning before the end of the walltime reaches it
exec {{ run_cmd }}
