"""Training (paper sections 3.1, 3.3 and 4.1): Multi-Mode Fusion, Clone Face Tuning, and what learns in them."""
