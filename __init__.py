"""FPGA Portrait: real people in generated pictures, each in their own place. ComfyUI nodes, and a library beneath them.

As a library the package offers the names of `fpga_core`, imported when they are asked for: `fpga_portrait.Identity`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .fpga_core import *  # noqa: F403

__version__ = "0.1.0"
WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's V3 entry point. Imports happen here so that importing the package alone needs no ComfyUI."""
    try:
        from .nodes import FPGAPortraitExtension
    except Exception:
        import logging

        logging.getLogger(__name__).exception("FPGA Portrait could not be loaded")  # ComfyUI swallows the traceback
        raise
    return FPGAPortraitExtension()


def __getattr__(name: str) -> object:
    from .fpga_core import public_part

    return public_part(name)
