"""Frazil's reconstruction worker: streaming 2D classification."""
