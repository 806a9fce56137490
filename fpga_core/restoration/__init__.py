"""DDIM Inversion based ID Restoration, DIIR (paper section 3.2, Alg. 1)."""
