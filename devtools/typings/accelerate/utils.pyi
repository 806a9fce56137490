from typing import TypeVar

_Item = TypeVar("_Item")

def gather_object(object: list[_Item]) -> list[_Item]: ...
