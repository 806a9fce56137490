"""Training nodes: a RepControlNet or an identity from a folder of data, with the same core as `fpga-portrait train`."""

from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.patching.clip_vision import ClipVisionEncoder
from ..fpga_core.training.comfy.in_graph import HostFolders, Trained, train_in_graph
from ..fpga_core.training.comfy.run import FrozenModels
from ..fpga_core.training.engine.settings import Precision, TrainingSettings
from ..fpga_core.training.method.curriculum import Curriculum
from ..fpga_core.training.method.fusion import MultiModeFusion
from ..fpga_core.training.plan import Task, TrainingPlan
from .sockets import FaceAnalysisSocket, IdentityAdapterSocket, LossMapSocket, RepControlNetSocket

CATEGORY = "FPGA Portrait/training"


def model_inputs() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip=(
                "The SD1.5 or SDXL model to train on. It is not changed. LoRAs applied to it count as part of the "
                "model."
            ),
        ),
        io.Clip.Input("clip", tooltip="The model's text encoder, which encodes the captions."),
        io.Vae.Input("vae", tooltip="The model's VAE, which encodes the pictures."),
    ]


def data_input() -> io.Input:
    return io.Combo.Input(
        "data",
        options=folder_paths.get_input_subfolders(),
        tooltip=(
            "A folder inside ComfyUI's input folder. It holds pictures, captions, skeletons, faces, landmarks and "
            "masks, either as separate files or in shards."
        ),
    )


def setting_inputs(output: str) -> list[io.Input]:
    def iterations(name: str, default: int, tooltip: str) -> io.Input:
        return io.Int.Input(name, default=default, min=0, max=10_000_000, tooltip=tooltip)

    return [
        iterations(
            "landmarks_steps", 500, "First stage: the number of steps that show face landmarks. The paper uses 50,000."
        ),
        iterations(
            "skeleton_steps", 1000, "Second stage: the number of steps that show the skeleton. The paper uses 100,000."
        ),
        iterations("both_steps", 1500, "Last stage: the number of steps that show both. The paper uses 1,000,000."),
        io.Int.Input(
            "clone_every",
            default=10,
            min=0,
            max=1000,
            tooltip=(
                "In the last stage, Clone Face Tuning is applied once in this many steps. The paper uses 10. 0 turns "
                "it off."
            ),
        ),
        io.Int.Input(
            "batch_size",
            default=1,
            min=1,
            max=1024,
            tooltip="The number of samples in memory at once. Lower it if memory runs out.",
        ),
        io.Int.Input(
            "accumulation",
            default=4,
            min=1,
            max=1024,
            tooltip=(
                "The number of batches whose gradients are combined into one step. Raise it to train with a larger "
                "batch in the same memory."
            ),
        ),
        io.Float.Input(
            "learning_rate",
            default=1e-4,
            min=1e-8,
            max=1.0,
            step=1e-6,
            tooltip="How far each step moves the weights. The paper uses 0.0001. Lower it if the training diverges.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            tooltip="The seed of the sample order and of the noise. The same seed gives the same training.",
        ),
        io.Combo.Input(
            "precision",
            options=Precision,
            default=Precision.BFLOAT16,
            tooltip=(
                "The precision of the computation. Use bf16 on newer GPUs and fp16 on older ones. no means float32."
            ),
        ),
        io.Boolean.Input(
            "gradient_checkpointing",
            default=True,
            tooltip=(
                "Recomputes intermediate results instead of keeping them. Training takes a third longer and needs much "
                "less memory."
            ),
        ),
        io.String.Input(
            "output_name", default=output, tooltip="The name of the training and of the files that it saves."
        ),
    ]


def result_outputs() -> list[io.Output]:
    return [
        LossMapSocket.Output(display_name="loss_map", tooltip="The loss at every step, for Plot Loss Graph."),
        io.Image.Output(display_name="curves", tooltip="A plot of the loss and its parts."),
        io.String.Output(display_name="report", tooltip="What was trained, and where its files are."),
    ]


def plan_of(task: Task, widgets: dict) -> TrainingPlan:
    """The plan that a node's widgets describe."""
    fusion = MultiModeFusion(
        widgets["landmarks_steps"],
        widgets["skeleton_steps"],
        widgets["both_steps"],
        clone_every=widgets["clone_every"],
    )
    settings = TrainingSettings(
        iterations=fusion.num_iterations,
        precision=Precision(widgets["precision"]),
        **{name: widgets[name] for name in ("batch_size", "accumulation", "learning_rate", "seed")},
    )
    return TrainingPlan(
        task=task,
        settings=settings,
        curriculum=Curriculum(fusion),
        is_checkpointed=widgets["gradient_checkpointing"],
    )


def host_folders() -> HostFolders:
    return HostFolders(
        inputs=Path(folder_paths.get_input_directory()),
        outputs=Path(folder_paths.get_output_directory()),
        controlnets=Path(folder_paths.get_folder_paths("controlnet")[0]),
        adapters=Path(folder_paths.get_folder_paths("fpga")[0]),
    )


def shown(trained: Trained) -> tuple:
    """What both nodes show of a training: `result_outputs`."""
    return trained.loss_map, trained.curves, trained.report


class TrainRepControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_TrainRepControlNet",
            display_name="Train RepControlNet",
            category=CATEGORY,
            description=(
                "Trains a RepControlNet for an SD1.5 or SDXL model on a folder of portraits (Multi-Mode Fusion), and "
                "saves it in models/controlnet. Cancel saves the state of the training; run the node again to "
                "continue. Needs the package accelerate and a GPU with plenty of memory."
            ),
            search_aliases=["training", "finetune", "train controlnet", "pose", "multi-mode fusion", "fpga"],
            is_experimental=True,
            inputs=[
                *model_inputs(),
                data_input(),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    optional=True,
                    tooltip="A RepControlNet to train further. If none is connected, a new one is trained.",
                ),
                *setting_inputs("repcontrolnet"),
            ],
            outputs=[
                RepControlNetSocket.Output(
                    display_name="repcontrolnet", tooltip="The trained RepControlNet, for Apply RepControlNet."
                ),
                *result_outputs(),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, data, output_name, repcontrolnet=None, **widgets) -> io.NodeOutput:
        models = FrozenModels(model=model, clip=clip, vae=vae, branch=repcontrolnet)
        plan = plan_of(Task.REPCONTROLNET, widgets)
        trained = train_in_graph(plan, models, data=data, output_name=output_name, folders=host_folders())
        return io.NodeOutput(trained.repcontrolnet, *shown(trained), ui=ui.PreviewImage(trained.curves))


class TrainIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_TrainIdentity",
            display_name="Train Identity",
            category=CATEGORY,
            description=(
                "Trains an identity adapter for an SD1.5 or SDXL model on a folder of portraits, with Clone Face "
                "Tuning, together with the key and value projections that read it. Cancel saves the state of the "
                "training; run the node again to continue. Needs the package accelerate and a GPU with plenty of "
                "memory."
            ),
            search_aliases=["training", "finetune", "train faceid", "train ip-adapter", "clone face tuning", "fpga"],
            is_experimental=True,
            inputs=[
                *model_inputs(),
                data_input(),
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip="Recognises the faces. Not needed if the data contains embeddings.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Adds CLIP-Vision features to what the identity reads. Needs a face analysis.",
                ),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    optional=True,
                    tooltip=(
                        "The RepControlNet that the identity will work with. If none is connected, a new branch is "
                        "trained."
                    ),
                ),
                *setting_inputs("identity"),
            ],
            outputs=[
                IdentityAdapterSocket.Output(
                    display_name="adapter",
                    tooltip="The identity adapter, for Apply Cast on a model with the branch applied.",
                ),
                RepControlNetSocket.Output(
                    display_name="repcontrolnet",
                    tooltip="The branch that the adapter was trained with. Apply both.",
                ),
                *result_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, vae, data, output_name, face_analysis=None, clip_vision=None, repcontrolnet=None, **widgets
    ) -> io.NodeOutput:
        encoder = None if clip_vision is None else ClipVisionEncoder(clip_vision)
        models = FrozenModels(
            model=model, clip=clip, vae=vae, face_analysis=face_analysis, clip_vision=encoder, branch=repcontrolnet
        )
        plan = plan_of(Task.IDENTITY, widgets)
        trained = train_in_graph(plan, models, data=data, output_name=output_name, folders=host_folders())
        return io.NodeOutput(
            trained.adapter, trained.repcontrolnet, *shown(trained), ui=ui.PreviewImage(trained.curves)
        )


NODES: list[type[io.ComfyNode]] = [TrainRepControlNet, TrainIdentity]
