"""ID embedding and Mask Guided Multi-ID Cross Attention (paper section 3.1)."""
