"""Says in words what a long computation is doing. Nodes show it while they run; elsewhere, nobody listens."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)
logger.propagate = False  # the server's log would fill with it


def say(words: str) -> None:
    """Says what is being done, such as "photo 2 of 4"."""
    logger.info("%s", words)
