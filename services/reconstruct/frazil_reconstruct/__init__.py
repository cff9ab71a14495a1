"""Frazil's reconstruction worker: streaming 2D classification, 3D refinement."""
