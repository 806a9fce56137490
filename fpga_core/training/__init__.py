"""Training: Multi-Mode Fusion, Clone Face Tuning, and the networks that learn by them (paper sections 3.1, 3.3, 4.1).

`data` holds what is learnt from, `method` what a step computes, `engine` how steps run and are saved, and `comfy` the
networks on ComfyUI's models. Each room imports only those before it.
"""
