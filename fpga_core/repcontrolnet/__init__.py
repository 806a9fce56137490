"""RepControlNet (paper section 3.3): a control branch that folds into the base weights."""
