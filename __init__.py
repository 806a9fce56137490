"""FPGA Portrait: real people in generated pictures, each in their own place, as ComfyUI nodes."""

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
