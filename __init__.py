"""FPGA Portrait: real people in generated pictures, each in their own place. ComfyUI nodes, and a library that they
use.

The parts of the library are those of `fpga_core`. They are imported when they are used, as in
`fpga_portrait.paste_faces`.
"""

__version__ = "0.1.0"
WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's V3 entry point. It imports the nodes, so that importing the package alone needs no ComfyUI."""
    try:
        from .nodes import FPGAPortraitExtension
    except Exception:
        import logging

        logging.getLogger(__name__).exception("FPGA Portrait could not be loaded")  # ComfyUI swallows the traceback
        raise
    return FPGAPortraitExtension()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from .fpga_core import *  # noqa: F403
else:

    def __getattr__(name):
        from .fpga_core import __getattr__ as public_part

        return public_part(name)

    def __dir__():
        from .fpga_core import __all__ as public_parts

        return [*globals(), *public_parts]
