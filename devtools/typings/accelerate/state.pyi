import torch

class AcceleratorState:
    device: torch.device
    mixed_precision: str
    @staticmethod
    def _reset_state(reset_partial_state: bool = False) -> None: ...

def is_initialized() -> bool: ...
