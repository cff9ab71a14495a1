"""Frazil's preprocessing worker: from a movie to micrograph, CTF, picks and particles."""
