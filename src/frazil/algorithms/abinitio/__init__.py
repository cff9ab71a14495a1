"""Ab-initio 3D: `run.AbInitio` is the door; `state` is what a checkpoint holds."""
