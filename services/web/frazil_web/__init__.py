"""Frazil's web page: a client of the scheduler that serves the browser."""
