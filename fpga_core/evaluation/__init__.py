"""Metrics of pictures (paper section 4)."""
