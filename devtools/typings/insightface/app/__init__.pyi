from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnxruntime import InferenceSession

class Model:
    model_file: str
    session: InferenceSession
    use_kps: bool
    input_sizes: Sequence[tuple[int, int]]
    def detect(self, img: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]: ...
    def nms(self, dets: np.ndarray) -> Sequence[int]: ...
    def get(self, img: np.ndarray, face: Mapping[str, Any]) -> object: ...

class FaceAnalysis:
    models: dict[str, Model]
    def __init__(self, *, name: str, providers: Sequence[str], allowed_modules: Sequence[str]) -> None: ...
    def prepare(self, ctx_id: int) -> None: ...
