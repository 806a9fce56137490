"""A real ComfyUI server with the pack loaded from `custom_nodes`, for tests, the demo and `dev.py serve`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
PACK_NAME = "fpga-portrait"
NOT_PART_OF_THE_PACK = (".git", "__pycache__", "tests", "devtools", "laboratory", "benches", ".venv")


class ServerError(Exception):
    """The server did not start, or ended unexpectedly. The message contains the end of its log."""


class ComfyServer:
    """A context manager that runs ComfyUI in a separate process.

    Args:
        base_directory: folder for models, input, output, user data and custom nodes; created if it does not exist.
        packs: other custom nodes to load, by the name of their folder in `custom_nodes`.
        arguments: other arguments of ComfyUI's main.py.
        port: port to listen on; by default a free one.
    """

    def __init__(
        self,
        base_directory: Path,
        packs: Mapping[str, Path] | None = None,
        arguments: Sequence[str] = (),
        port: int | None = None,
    ):
        self.base_directory = base_directory
        self.packs = {PACK_NAME: ROOT, **(packs or {})}
        self.arguments = tuple(arguments)
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = base_directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 300) -> None:
        """Starts the server and waits until it answers.

        Raises:
            ServerError: it ended, or did not answer in time.
        """
        for folder in ("custom_nodes", "input", "output", "models"):
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        for name, source in self.packs.items():
            place_pack(source, self.base_directory / "custom_nodes" / name)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,  # the tether
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base_directory,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"},
                start_new_session=True,  # Ctrl-C goes to the starting program, which then stops the server
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI ended with exit status {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s:\n{self.log_tail()}")
            time.sleep(0.25)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._process = None

    @property
    def process_id(self) -> int:
        """Returns the id of the server's process while it runs.

        Raises:
            ServerError: it is not running.
        """
        if self._process is None:
            raise ServerError("the server has not been started, or has ended")
        return self._process.pid

    def wait(self) -> None:
        """Waits until the server has ended."""
        if self._process:
            self._process.wait()

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def log_tail(self, num_lines: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-num_lines:])

    def _command(self) -> list[str]:
        import torch

        command = [sys.executable, str(ROOT / "devtools" / "tethered.py")]
        command += [str(Path(os.environ["COMFYUI_PATH"]) / "main.py"), "--port", str(self.port)]
        command += ["--base-directory", str(self.base_directory), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--disable-auto-launch"]
        return [*command, *([] if torch.cuda.is_available() else ["--cpu"]), *self.arguments]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/system_stats", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place_pack(source: Path, target: Path) -> None:
    """Places a pack in `custom_nodes`, as a link, or as a copy if the system does not allow links."""
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    try:
        target.symlink_to(source.resolve(), target_is_directory=True)
    except OSError:  # Windows without developer mode
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_PART_OF_THE_PACK))
