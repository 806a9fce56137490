"""The node that loads the detector."""

from comfy_api.v0_0_2 import ComfyExtension, io

from .mtcnn import MtcnnAnalyzer


class LoadFaceAnalysis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGATest_LoadFaceAnalysis",
            display_name="Load Face Analysis (test)",
            category="FPGA Portrait/test",
            description="MTCNN from facenet-pytorch on the CPU: boxes and five landmarks, no embeddings.",
            inputs=[],
            outputs=[io.Custom("FPGA_FACE_ANALYSIS").Output(display_name="face_analysis")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(MtcnnAnalyzer())


class StandInExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadFaceAnalysis]
