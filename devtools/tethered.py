"""Runs a script for as long as whoever started it lives: `python tethered.py SCRIPT [arguments]`.

Standard input is the tether. It closes when the starter ends, however that happens, and then so does this process:
an interrupted test run leaves no server behind.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def end_with_starter() -> None:
    while os.read(0, 4096):  # sys.stdin would be locked by this thread while the interpreter ends
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
