"""Training on the models of ComfyUI."""
