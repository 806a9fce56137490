"""Servers as Ray actors: Ray chooses where they run, one for each GPU, and they end with the queue."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...fpga_core.errors import ServerError
from ...fpga_core.packages import importing

START_S, STOP_S = 600, 30
"""Seconds that a ComfyUI has to start, and to stop."""


class ComfyActor:
    """A ComfyUI on a node of the cluster, with output and temporary folders of its own.

    Args:
        folder: ComfyUI's folder on the node.
        arguments: further arguments of its main.py.
    """

    def __init__(self, folder: str, arguments: list[str]) -> None:
        import ray.util

        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
        self._own = own = tempfile.mkdtemp(prefix="fpga-queue-")
        command = [sys.executable, "main.py", "--listen", address, "--port", str(port), "--disable-auto-launch"]
        command += ["--output-directory", own, "--temp-directory", own, *arguments]
        self.url = f"http://{address}:{port}"
        self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self) -> str:
        """Returns the server's address when it answers.

        Raises:
            RuntimeError: it ended, or did not start in time.
        """
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=2):  # noqa: S310 - http, from above
                    return self.url
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI at {self.url} did not start (exit status {self._process.poll()})")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._own, ignore_errors=True)


@contextmanager
def ray_servers(number: int, folder: Path) -> Iterator[list[str]]:
    """Starts servers on the cluster that RAY_ADDRESS names, or on this machine, and yields their addresses.

    Args:
        number: how many; each takes a GPU of its own, if the cluster has any.
        folder: ComfyUI's folder, the same on every node.
    Raises:
        MissingPackageError: Ray is not installed.
        ServerError: a server did not start.
    """
    with importing("ray"):
        import ray
        import ray.cloudpickle
        import ray.exceptions
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes need not have this package
    ray.init(log_to_driver=False)
    try:
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        actor = ray.remote(num_gpus=int(has_gpus))(ComfyActor)
        servers = [actor.remote(str(folder), [] if has_gpus else ["--cpu"]) for _ in range(number)]
        try:
            yield ray.get([server.wait.remote() for server in servers])
        except ray.exceptions.RayError as error:
            raise ServerError(f"check that ComfyUI starts in '{folder}' on every node: {error}") from error
        finally:
            ray.wait([server.stop.remote() for server in servers], num_returns=number, timeout=STOP_S)
    finally:
        ray.shutdown()
