"""Lets torchvision be imported beside a CPU build of torch that it has no build for.

torchvision's compiled operators do not load there, and its Python code then fails where it registers their shapes
("operator torchvision::nms does not exist"). Declaring the missing operators first is enough: nothing here calls them.
`dev.py` puts this folder on PYTHONPATH only where importing torchvision fails, so child processes inherit the cure.
"""

import importlib.abc
import sys

MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class DeclareMissingOperators(importlib.abc.MetaPathFinder):
    """Acts on the first import of torchvision, so that torch is not imported before its user wants it."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch

        self.library = torch.library.Library("torchvision", "DEF")
        for schema in MISSING_OPERATORS:
            self.library.define(schema)
        return None


FINDER = DeclareMissingOperators()  # referenced for good: the operators vanish with its library
sys.meta_path.insert(0, FINDER)
