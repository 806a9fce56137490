from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnxruntime import InferenceSession

class Model:
    model_file: str
    session: InferenceSession
    use_kps: bool

class FaceAnalysis:
    models: dict[str, Model]
    def __init__(self, *, name: str, providers: Sequence[str], allowed_modules: Sequence[str]) -> None: ...
    def prepare(self, ctx_id: int) -> None: ...
    def get(self, img: np.ndarray) -> list[Mapping[str, Any]]: ...
