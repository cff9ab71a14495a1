"""Operations outside the array standard: a numpy twin as the oracle, a compiled CPU version, a CUDA version."""
