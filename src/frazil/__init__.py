"""Frazil: live cryo-EM processing, from a growing folder of movies to 2D classes and a 3D map."""

__version__ = "0.1.0"
