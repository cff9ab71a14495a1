"""Runners of preprocessing jobs, one file per declaration in `frazil.jobs`."""
