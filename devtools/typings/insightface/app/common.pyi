from typing import Any

class Face(dict[str, Any]):
    def __init__(self, **kwargs: Any) -> None: ...
