"""How good a picture is, in figures (paper section 4, metrics)."""
