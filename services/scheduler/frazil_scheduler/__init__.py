"""Frazil's scheduler: the one ledger of sessions, exposures, jobs, leases and events."""
