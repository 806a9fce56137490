"""Shows what the pack logs in the editor, on the node that runs: warnings, and what a long computation is doing."""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..fpga_core import progress

WARNING, PROGRESS = "fpga.warning", "fpga.progress"
"""The websocket messages; `web/reports/index.js` shows them."""

PACK_LOGGER = logging.getLogger(__name__.removesuffix(".nodes.messages"))
"""What all loggers of the pack belong to."""


class InEditor(logging.Handler):
    """Sends what is logged to the editor, with the node that was running."""

    def __init__(self, event: str, level: int) -> None:
        super().__init__(level)
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        running, server = get_executing_context(), getattr(PromptServer, "instance", None)
        if running is not None and server is not None:
            text = {"node": running.node_id, "prompt_id": running.prompt_id, "text": record.getMessage()}
            server.send_sync(self._event, text, server.client_id)


def show_in_editor() -> None:
    """Sends warnings of the whole pack, and its progress, to the editor. Warnings stay in the server's log too."""
    for logger, event, level in ((PACK_LOGGER, WARNING, logging.WARNING), (progress.logger, PROGRESS, logging.INFO)):
        if not any(isinstance(handler, InEditor) for handler in logger.handlers):
            logger.addHandler(InEditor(event, level))
