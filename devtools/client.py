"""A small client of ComfyUI's HTTP and websocket interface: it queues a graph, follows it, and fetches the results."""

from __future__ import annotations

import io
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import websocket
from PIL import Image

from ..commands.queue.outcome import reasons

Prompt = dict[str, dict[str, Any]]
"""A graph in API format: node id -> {class_type, inputs}."""


def api_node(class_type: str, title: str | None = None, /, **inputs: Any) -> dict[str, Any]:
    """Returns one node of a graph. An input is a value, or [node id, number of the output]."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


class PromptError(Exception):
    """The server refused a graph, or a node failed; the message is the server's own."""


@dataclass(frozen=True)
class Execution:
    """The results of one run of a graph.

    Attributes:
        prompt_id: the server's name for the run.
        outputs: node id -> the node's output ("images", "text", ...).
        executed: ids of the nodes that ran, in order; cached ones are missing.
        messages: every websocket message of the run.
    """

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    executed: tuple[str, ...]
    messages: tuple[dict[str, Any], ...] = field(repr=False)


class ComfyClient:
    """A connection to one server as one client."""

    def __init__(self, address: str, timeout: float = 300):
        self.address = address
        self.timeout = timeout
        self.client_id = uuid.uuid4().hex

    def get(self, path: str, **parameters: str) -> requests.Response:
        """Sends a GET request for a path of the server; an error status raises."""
        reply = requests.get(f"{self.address}{path}", params=parameters, timeout=self.timeout)
        reply.raise_for_status()
        return reply

    def object_info(self) -> dict[str, dict[str, Any]]:
        """Returns every node that the server knows, by id."""
        return self.get("/object_info").json()

    def upload_image(self, path: Path) -> str:
        """Uploads a picture to the server's input folder and returns the name for LoadImage."""
        with path.open("rb") as file:
            form: dict[str, Any] = {"files": {"image": (path.name, file)}, "data": {"overwrite": "true"}}
            reply = requests.post(f"{self.address}/upload/image", timeout=self.timeout, **form)
        reply.raise_for_status()
        return reply.json()["name"]

    def set_setting(self, name: str, value: Any) -> None:
        """Sets one of the editor's settings."""
        requests.post(f"{self.address}/settings/{name}", json=value, timeout=self.timeout).raise_for_status()

    def run(self, prompt: Prompt) -> Execution:
        """Queues a graph and follows it to its end.

        Raises:
            PromptError: the server refused it, a node failed, or it was interrupted.
            TimeoutError: it did not finish within the client's timeout.
        """
        channel = websocket.create_connection(
            f"{self.address.replace('http', 'ws', 1)}/ws?clientId={self.client_id}", timeout=self.timeout
        )
        try:
            prompt_id = self.queue(prompt)
            messages = self._follow(channel, prompt_id)
        finally:
            channel.close()
        executed = tuple(m["data"]["node"] for m in messages if m["type"] == "executing" and m["data"]["node"])
        return Execution(prompt_id, self._outputs(prompt_id), executed, messages)

    def queue(self, prompt: Prompt) -> str:
        """Queues a graph and returns its id.

        Raises:
            PromptError: the server refused it.
        """
        reply = requests.post(
            f"{self.address}/prompt", json={"prompt": prompt, "client_id": self.client_id}, timeout=self.timeout
        )
        if not reply.ok or reply.json().get("node_errors"):  # with some valid outputs, it would run a part of the graph
            raise PromptError(refusal(reply.text))
        return reply.json()["prompt_id"]

    def clear_history(self) -> None:
        """Makes the server forget its finished runs. Otherwise it keeps up to 10,000 of them."""
        requests.post(f"{self.address}/history", json={"clear": True}, timeout=self.timeout).raise_for_status()

    def interrupt(self) -> None:
        requests.post(f"{self.address}/interrupt", timeout=self.timeout).raise_for_status()

    def images(self, execution: Execution, node_id: str | None = None) -> list[Image.Image]:
        """Returns the pictures that a run saved or showed, from one node or from all."""
        nodes = [node_id] if node_id else list(execution.outputs)
        files = [file for node in nodes for file in execution.outputs.get(node, {}).get("images", [])]
        return [Image.open(io.BytesIO(self.get("/view", **file).content)) for file in files]

    def _outputs(self, prompt_id: str) -> dict[str, dict[str, Any]]:
        """Returns the history of a run. The server writes it a moment after it announces the run's success."""
        deadline = time.monotonic() + self.timeout
        while prompt_id not in (history := self.get(f"/history/{prompt_id}").json()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the history has no entry of the run {prompt_id}")
            time.sleep(0.05)
        return history[prompt_id]["outputs"]

    def _follow(self, channel: websocket.WebSocket, prompt_id: str) -> tuple[dict[str, Any], ...]:
        messages: list[dict[str, Any]] = []
        deadline = time.monotonic() + self.timeout
        while True:
            channel.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                frame = channel.recv()
            except websocket.WebSocketTimeoutException:
                raise TimeoutError(f"the graph did not finish within {self.timeout:.0f} s") from None
            if isinstance(frame, bytes):  # a preview picture
                continue
            message = json.loads(frame)
            if message.get("data", {}).get("prompt_id") != prompt_id:
                continue
            messages.append(message)
            if message["type"] == "execution_success":
                return tuple(messages)
            if message["type"] in ("execution_error", "execution_interrupted"):
                raise PromptError(failure(message))


def refusal(reply: str) -> str:
    """Returns the server's reasons for refusing a graph, one per line."""
    try:
        return "\n".join(reasons(json.loads(reply)))
    except json.JSONDecodeError:
        return reply


def failure(message: dict[str, Any]) -> str:
    """Returns what the server says about a run that did not succeed."""
    data = message["data"]
    node = f"node {data.get('node_id')} {data.get('node_type')}"
    if message["type"] == "execution_interrupted":
        return f"{node}: interrupted"
    return f"{node}: {data['exception_type']}: {data['exception_message']}\n{''.join(data.get('traceback', []))}"
