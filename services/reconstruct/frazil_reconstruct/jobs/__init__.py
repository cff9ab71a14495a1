"""Runners of reconstruction jobs, one file per declaration in `frazil.jobs`."""
