"""FPGA's method without sockets: see the package of each part of the paper."""

from __future__ import annotations


def public_part(name: str) -> object:
    raise AttributeError(name)
