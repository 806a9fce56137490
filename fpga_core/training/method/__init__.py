"""What training computes: the objectives of Multi-Mode Fusion and Clone Face Tuning, and what learns in them."""
