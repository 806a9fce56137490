"""Shows the pack's warnings in the editor: on the node that runs, and as a message of their own."""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context
from server import PromptServer

EVENT = "fpga.warning"
"""The websocket message; `web/reports/index.js` shows it."""

PACK_LOGGER = __name__.removesuffix(".nodes.warnings")
"""The name that all loggers of the pack begin with."""


class WarningsInEditor(logging.Handler):
    """Sends each warning that the pack logs to the editor, with the node that was running."""

    def emit(self, record: logging.LogRecord) -> None:
        running, server = get_executing_context(), getattr(PromptServer, "instance", None)
        if running is not None and server is not None:
            text = {"node": running.node_id, "prompt_id": running.prompt_id, "text": record.getMessage()}
            server.send_sync(EVENT, text, server.client_id)


def show_warnings() -> None:
    """Sends the warnings of the whole pack to the editor from now on. They stay in the server's log too."""
    logger = logging.getLogger(PACK_LOGGER)
    if not any(isinstance(handler, WarningsInEditor) for handler in logger.handlers):
        logger.addHandler(WarningsInEditor(logging.WARNING))
