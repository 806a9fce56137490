import os
from collections.abc import Mapping

from torch import Tensor

def load_file(filename: str | os.PathLike[str]) -> dict[str, Tensor]: ...
def save_file(
    tensors: Mapping[str, Tensor], filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None: ...
