"""A custom node pack for tests and the demo only: a face detector that works without a download.

`FPGATest_LoadFaceAnalysis` gives what `FPGA_LoadFaceAnalysis` gives, from the MTCNN weights that the registry package
facenet-pytorch ships (install it with `--no-deps`: its pins are old). Put this folder, or a link to it, into
`custom_nodes` beside the pack.
"""


async def comfy_entrypoint():
    from .node import StandInExtension

    return StandInExtension()
