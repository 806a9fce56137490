"""The parts of `dev.py`. The pack itself does not need them."""
