"""Runs a script for as long as the process that started it lives: `python tethered.py SCRIPT [arguments]`.

Standard input is the tether. It closes when the starting process ends, however that happens, and then this process ends
too. An interrupted test run therefore leaves no server behind.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def end_with_starter() -> None:
    while os.read(0, 4096):  # this thread would lock sys.stdin while the interpreter ends
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
