"""Makes ComfyUI's modules impossible to import, wherever they are, to show that nothing needs them."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

COMFYUI = {
    *("comfy", "comfy_api", "comfy_config", "comfy_execution", "comfy_extras"),
    *("execution", "folder_paths", "node_helpers", "nodes", "server"),
}


class Refusal(MetaPathFinder):
    """Finds none of ComfyUI's modules, and says so."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in COMFYUI:
            raise ModuleNotFoundError(f"{fullname} is ComfyUI's, which must not be imported here", name=fullname)
        return None


def refuse_comfyui() -> None:
    """Makes every later import of ComfyUI fail."""
    sys.meta_path.insert(0, Refusal())
