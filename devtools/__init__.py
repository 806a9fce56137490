"""The project's workshop: what `dev.py` runs. Nothing here is needed to use the pack."""
