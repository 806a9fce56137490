"""The computation of training: the objectives of Multi-Mode Fusion and Clone Face Tuning, and the networks."""
