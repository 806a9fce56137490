"""DIIR on ComfyUI: the samplers, and the restoration of all faces of a batch of pictures."""
