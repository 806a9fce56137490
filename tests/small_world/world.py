"""`dev.py world train [STAGE ...]`: what can be done with the small world, by its name."""

import sys

from . import train

COMMANDS = {"train": train.main}


def main(command: str | None = None, *arguments: str) -> None:
    if command not in COMMANDS:
        sys.exit(f"dev.py world: choose one of {', '.join(COMMANDS)}, for instance `dev.py world train`")
    COMMANDS[command](list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
