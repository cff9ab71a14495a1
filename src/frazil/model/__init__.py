"""Frozen records with the field's names and units; no I/O, no arrays, no wire."""
