"""The contrast transfer function: its model, its estimation from a micrograph, how far the fit can be trusted, a picture."""
