"""How training runs: processes, steps, saved states, logs."""
