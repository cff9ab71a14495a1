"""Frazil's ingest service: finds movies, proves them complete, registers them."""
