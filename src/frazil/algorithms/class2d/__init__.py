"""Streaming 2D classification: `stream.Streaming2d` is the door; `state` is what a checkpoint holds."""
