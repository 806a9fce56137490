"""`dev.py serve` runs the editor with the pack loaded, until Ctrl-C. Other arguments go to ComfyUI."""

import sys

from .environment import cache_folder
from .server import ComfyServer


def main(arguments: list[str]) -> None:
    base = cache_folder() / "serve"
    with ComfyServer(base, arguments=arguments, port=8188) as server:
        print(f"the editor is at {server.address} (Ctrl-C ends it)")
        print(f"models, input and output are in {base}, the server's log is {server.log}", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("ending")


if __name__ == "__main__":
    main(sys.argv[1:])
