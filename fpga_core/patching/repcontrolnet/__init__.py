"""RepControlNets on ComfyUI: folded into the weights or live beside them, and saved."""
