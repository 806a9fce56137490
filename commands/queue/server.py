"""One ComfyUI server, as the queue needs it: its HTTP interface, and the websocket that says when a job has ended."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import aiohttp

from .job import Job
from .outcome import Outcome, PictureFile, reasons

GONE = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What is raised if a server cannot be reached, ends, or does not answer."""

ANSWER_S = 30
"""Seconds that a server has to answer a request. It answers while it works."""


LOCAL_PORTS = (8188, 8000)
"""Where ComfyUI and its desktop application listen."""


class RefusedError(Exception):
    """The server does not accept a graph; the message is its own."""


class Server:
    """A connection to one server. Every method raises one of `GONE` if the server does not answer.

    Attributes:
        url: its address, without a slash at the end.
        jobs: prompt id -> the job that was sent to the server, in order; the first is running.
        news: set when a job of this server has ended, its connection has, or there is other work for it.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self.jobs: dict[str, Job] = {}
        self.news = asyncio.Event()
        self._session = session
        self._client_id = uuid.uuid4().hex
        self._listening: asyncio.Task[None] | None = None
        self._uploaded: set[str] = set()

    @property
    def is_connected(self) -> bool:
        return self._listening is not None and not self._listening.done()

    async def connect(self) -> None:
        socket = await asyncio.wait_for(
            self._session.ws_connect(
                f"{self.url}/ws", params={"clientId": self._client_id}, heartbeat=ANSWER_S, max_msg_size=0
            ),
            ANSWER_S,
        )
        self._uploaded.clear()  # it may be another server at the same address
        self._listening = asyncio.create_task(self._listen(socket))

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        """Reports ends of jobs: the server sends `executing` without a node when a job's history is complete."""
        try:
            async with socket:
                async for frame in socket:
                    if frame.type is aiohttp.WSMsgType.TEXT:
                        message = json.loads(frame.data)
                        if message["type"] == "executing" and message["data"]["node"] is None:
                            self.news.set()
        finally:
            self.news.set()

    async def send(self, prompt_id: str, job: Job) -> None:
        """Uploads the photos that the server does not have, and queues the graph.

        Raises:
            RefusedError: the server does not accept the graph or a photo, or a photo cannot be read.
        """
        for name, file in job.uploads.items():
            if name not in self._uploaded:
                await self._upload(name, file)
                self._uploaded.add(name)
        body = {"prompt": job.graph, "client_id": self._client_id, "prompt_id": prompt_id}
        async with self._session.post(f"{self.url}/prompt", json=body) as reply:
            check_gateway(reply)
            text = await reply.text()
        answer = json.loads(text) if text.startswith("{") else {"error": text}
        if reply.status != 200 or answer.get("node_errors"):  # with some valid outputs, it would run a part of it
            await self.cancel(prompt_id)
            raise RefusedError("; ".join(reasons(answer)))

    async def _upload(self, name: str, file: Path) -> None:
        """Uploads a photo unless the server has it; the name contains the hash of its content."""
        folder, _, filename = name.rpartition("/")
        try:
            content = await asyncio.to_thread(file.read_bytes)
        except OSError as error:
            raise RefusedError(f"the photo '{file}' cannot be read ({error})") from error
        view = {"filename": filename, "subfolder": folder, "type": "input"}
        async with self._session.head(f"{self.url}/view", params=view) as reply:
            if reply.status == 200 and reply.content_length == len(content):
                return
        form = aiohttp.FormData({"subfolder": folder, "overwrite": "true"})
        form.add_field("image", content, filename=filename)
        await self._ask("POST", "/upload/image", data=form)

    async def outcome(self, prompt_id: str) -> Outcome | None:
        """Returns what became of a job, or None while the server has not ended it."""
        history = json.loads(await self._ask("GET", f"/history/{prompt_id}"))
        return Outcome.of(history[prompt_id]) if prompt_id in history else None

    async def queued(self) -> tuple[str, ...]:
        """Returns the prompt ids that the server runs or will run, of all of its users."""
        queue = json.loads(await self._ask("GET", "/queue"))
        return tuple(item[1] for item in (*queue["queue_running"], *queue["queue_pending"]))

    async def cancel(self, prompt_id: str) -> None:
        """Takes a job out of the server's queue, or stops it if it is running; nothing happens if it is neither."""
        await self._ask("POST", "/queue", json={"delete": [prompt_id]})
        await self._ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def picture(self, file: PictureFile) -> bytes:
        return await self._ask("GET", "/view", params=file.address)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        json: object = None,
        data: aiohttp.FormData | None = None,
    ) -> bytes:
        async with self._session.request(method, f"{self.url}{path}", params=params, json=json, data=data) as reply:
            check_gateway(reply)
            if not reply.ok:
                raise RefusedError(f"{method} {path} was answered with {reply.status} {reply.reason}")
            return await reply.read()


def check_gateway(reply: aiohttp.ClientResponse) -> None:
    """Raises if a proxy answers in place of a server that is gone."""
    if reply.status in (502, 503, 504):
        reply.raise_for_status()


async def find_local(session: aiohttp.ClientSession) -> str | None:
    """Returns the address of the ComfyUI on this machine, or None."""
    for port in LOCAL_PORTS:
        url = f"http://127.0.0.1:{port}"
        try:
            async with session.get(f"{url}/system_stats") as reply:
                if reply.status == 200 and "comfyui_version" in (await reply.json())["system"]:
                    return url
        except (*GONE, ValueError, KeyError, TypeError):
            continue
    return None
