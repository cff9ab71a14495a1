"""The science: pure functions from arrays to arrays, on any backend of `frazil.array`."""
