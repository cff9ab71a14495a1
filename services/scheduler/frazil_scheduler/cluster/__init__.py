"""Lanes of clusters: what is asked of a batch system, and what follows from its answers.

`provision` decides (pure), `pilots` keeps the cluster jobs in the ledger, `loop` carries decisions to the lane's backend and
answers back. The rest serves the backends in `frazil_scheduler.lanes`: `options`, `templates`, `dialects` and `commands` for
batch systems with a command line, `kubernetes_api` and `kubernetes_jobs` for Kubernetes.
"""
