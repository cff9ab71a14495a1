#!/usr/bin/env bash
#PBS -l select=1:ncpus={{ num_cpu }}:ngpus={{ num_gpu }}:mem={{ ram_gb }}gb
{%- if walltime %}
#PBS -l walltime={{ walltime }}
{%- endif %}
#PBS -j oe
#PBS -o {{ job_log_path_abs }}

exec {{ run_cmd }}
