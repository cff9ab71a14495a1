"""Homogeneous 3D refinement: `stream.StreamingRefinement` is the door; `state` is what a checkpoint holds."""
