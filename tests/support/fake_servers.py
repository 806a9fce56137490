"""Servers with ComfyUI's HTTP interface and no models, which can die, refuse, fail and forget in the middle of a test.

A real ComfyUI runs the same queue in tests/host/test_queue.py.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import WSMsgType, web

PICTURE = b"\x89PNG "


@asynccontextmanager
async def serving(*seconds: float) -> AsyncIterator[list["FakeServer"]]:
    """Runs one server for each number of seconds that its jobs take. Servers that are added to the list end with it."""
    servers = [await FakeServer(each).start() for each in seconds]
    try:
        yield servers
    finally:
        for server in servers:
            await server.die()


class FakeServer:
    """One server. It runs its queue one by one, and each job takes `seconds`.

    Attributes:
        runs: prompt ids that ran to their end, in order.
        graphs: what they were.
        uploads: name of each uploaded photo, as often as it was uploaded.
        refuses, fails, scores: what it does with a graph; `scores` gives outputs of nodes.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.runs: list[str] = []
        self.graphs: list[dict] = []
        self.uploads: list[str] = []
        self.queue: list[tuple[str, dict]] = []
        self.history: dict[str, dict] = {}
        self.refuses: Callable[[dict], bool] = lambda graph: False
        self.fails: Callable[[dict], bool] = lambda graph: False
        self.scores: Callable[[dict], dict[str, list]] = lambda graph: {}
        self.files: dict[str, bytes] = {}
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._runner: web.AppRunner | None = None
        self._worker: asyncio.Task | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> "FakeServer":
        """Starts it, at its old address if it had one."""
        app = web.Application(client_max_size=2**30)
        app.add_routes(
            [
                web.get("/system_stats", self._stats),
                web.get("/ws", self._socket),
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.post("/queue", self._delete),
                web.post("/interrupt", self._interrupt),
                web.get("/history/{prompt_id}", self._history),
                web.get("/view", self._view),
                web.post("/upload/image", self._upload),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        self._worker = asyncio.create_task(self._work())
        return self

    async def die(self) -> None:
        """Ends at once, and forgets everything, like a process that is killed."""
        self._worker.cancel()
        for socket in list(self._sockets.values()):
            socket._req.transport.abort()
        await self._runner.cleanup()
        self.queue, self.history, self._sockets = [], {}, {}

    async def _work(self) -> None:
        while True:
            if not self.queue:
                await asyncio.sleep(0.001)
                continue
            prompt_id, graph = self.queue[0]
            await asyncio.sleep(self.seconds)
            if not self.queue or self.queue[0][0] != prompt_id:  # interrupted
                continue
            self.queue.pop(0)
            self.runs.append(prompt_id)
            self.graphs.append(graph)
            failed = self.fails(graph)
            file = f"{prompt_id}.png"  # saved by node 9
            self.files[file] = PICTURE + json.dumps(graph, sort_keys=True).encode()
            error = {"node_id": "9", "node_type": "KSampler", "exception_type": "E", "exception_message": "no\nluck"}
            self.history[prompt_id] = {
                "prompt": [0, prompt_id, graph, {}, []],
                "outputs": {"9": {"images": [{"filename": file, "subfolder": "", "type": "output"}]}}
                | self.scores(graph),
                "status": {
                    "status_str": "error" if failed else "success",
                    "messages": [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3500}]]
                    + ([["execution_error", error]] if failed else []),
                },
            }
            message = {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
            for socket in list(self._sockets.values()):
                with suppress(ConnectionError):
                    await socket.send_json(message)

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.30.0"}, "devices": []})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets[request.query["clientId"]] = socket
        await socket.send_json({"type": "status", "data": {"status": {}}})
        async for frame in socket:
            assert frame.type is WSMsgType.TEXT
        self._sockets.pop(request.query["clientId"], None)
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuses(body["prompt"]):
            errors = [{"message": "Value not in list", "details": "ckpt_name"}]
            node_errors = {"1": {"class_type": "CheckpointLoaderSimple", "errors": errors}}
            return web.json_response({"error": None, "node_errors": node_errors}, status=400)
        self.queue.append((body["prompt_id"], body["prompt"]))
        return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})

    async def _queue(self, request: web.Request) -> web.Response:
        items = [[0, prompt_id, graph, {}, []] for prompt_id, graph in self.queue]
        return web.json_response({"queue_running": items[:1], "queue_pending": items[1:]})

    async def _delete(self, request: web.Request) -> web.Response:
        ids = (await request.json())["delete"]
        self.queue = [*self.queue[:1], *(item for item in self.queue[1:] if item[0] not in ids)]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        prompt_id = (await request.json())["prompt_id"]
        if self.queue and self.queue[0][0] == prompt_id:
            self.queue.pop(0)
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _view(self, request: web.Request) -> web.Response:
        content = self.files.get(request.query["filename"])
        return web.Response(status=404) if content is None else web.Response(body=content)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        photo = form["image"]
        self.uploads.append(f"{form['subfolder']}/{photo.filename}")
        self.files[photo.filename] = photo.file.read()
        return web.json_response({"name": photo.filename})
