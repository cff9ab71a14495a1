#!/usr/bin/env bash
#BSUB -n {{ num_cpu }}
#BSUB -R "span[hosts=1] rusage[mem={{ ram_gb }}GB]"
{%- if num_gpu %}
#BSUB -gpu "num={{ num_gpu }}"
{%- endif %}
{%- if walltime %}
#BSUB -W {{ walltime[:-3] }}
{%- endif %}
#BSUB -o {{ job_log_path_abs }}

exec {{ run_cmd }}
