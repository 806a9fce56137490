"""`dev.py workflows` makes the editor write each workflow of workflows/api/ in its own format.

The API format is the source, so that the API and the editor use the same graph. Nodes are arranged in groups, which are
read from left to right: models, photos, prompt, result. A group has columns, so that most wires lead from one column to
the next. In a column, nodes stand in the order in which they run, with room for the pictures and reports that they show
after a run. Nodes whose reports grow end their column. What an artist changes is green. `blueprints.py` says which
parts of which workflows are folded into one node. A node's `_meta` holds its title and, optionally, a `note` that is
shown beside the graph.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from .blueprints import BLUEPRINTS, fold
from .launch import ROOT
from .server import ComfyServer
from .stand_ins import PACKS, place_stand_ins

WORKFLOWS, BLUEPRINTS_FOLDER = ROOT / "workflows", ROOT / "subgraphs"
COLUMN_GAP, ROW_GAP = 70, 50
COLUMN_PX = 1700
"""The height at which a column is full."""
PHOTO_PX = 310
"""The height of a node that loads a photo."""
PICTURES = ("PreviewImage", "SaveImage", "MaskPreview")
"""The other nodes that show a picture."""

REPORTS_PX = {
    "FPGA_ApplyCast": 120,
    "FPGA_ApplyCastControlNet": 120,
    "FPGA_ApplyRepControlNet": 90,
    "FPGA_CropFaces": 190,
    "FPGA_DescribePerson": 190,
    "FPGA_EncodeIdentity": 190,
    "FPGA_LoadFaceAnalysis": 110,
    "FPGA_LoadIdentityAdapter": 90,
    "FPGA_MakeCast": 170,
    "FPGA_RestoreFaces": 330,
    "FPGA_ScoreCast": 190,
}
"""The nodes that show a report, or are drawn much higher by Nodes 2.0, and the height that they need for it."""

ENDING_A_COLUMN = ("FPGA_ApplyCast", "FPGA_ApplyCastControlNet", "FPGA_MakeCast", "FPGA_RestoreFaces")
"""The nodes whose reports grow with warnings and people, so that nothing stands below them."""

GROUPS = {
    "Models": (
        ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader", "ControlNetLoader"),
        ("FPGA_LoadIdentityAdapter", "FPGA_LoadRepControlNet", "UpscaleModelLoader"),
    ),
    "1 Your photos": (
        ("LoadImage", "FPGA_LoadFaceAnalysis"),
        ("FPGA_EncodeIdentity", "FPGA_DescribePerson", "FPGA_DetectFaces"),
        ("FPGA_MakeCast",),
    ),
    "2 Prompt": (("CLIPTextEncode", "EmptyLatentImage", "EmptyFlux2LatentImage", "FPGA_DrawLandmarks"),),
    "3 Result": (),
}
"""The groups from left to right, with the nodes of their columns. All other nodes belong to the last group."""

CHANGED_BY_ARTISTS = ("LoadImage", "CLIPTextEncode", "FPGA_DescribePerson", "FPGA_MakeCast")

HUB, MAIN = "https://huggingface.co", "resolve/main"
PUBLIC_FILES = {
    "v1-5-pruned-emaonly-fp16.safetensors": ("checkpoints", f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/{MAIN}"),
    "control_v11p_sd15_openpose_fp16.safetensors": (
        "controlnet",
        f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/{MAIN}",
    ),
    "flux-2-klein-base-4b-fp8.safetensors": (
        "diffusion_models",
        f"{HUB}/black-forest-labs/FLUX.2-klein-base-4b-fp8/{MAIN}",
    ),
    "z_image_turbo_bf16.safetensors": (
        "diffusion_models",
        f"{HUB}/Comfy-Org/z_image_turbo/{MAIN}/split_files/diffusion_models",
    ),
    "qwen_3_4b.safetensors": ("text_encoders", f"{HUB}/Comfy-Org/z_image_turbo/{MAIN}/split_files/text_encoders"),
    "flux2-vae.safetensors": ("vae", f"{HUB}/Comfy-Org/flux2-dev/{MAIN}/split_files/vae"),
    "ae.safetensors": ("vae", f"{HUB}/Comfy-Org/z_image_turbo/{MAIN}/split_files/vae"),
    "RestoreFormer.pth": ("upscale_models", "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4"),
}
"""The public files that workflows name: their folder in `models`, and where the editor offers to download them. The
face analysis and the adapter are not among them, because their nodes download them."""

NAME = """([prompt, files]) => {
  for (const [id, { _meta, inputs }] of Object.entries(prompt)) {
    const node = app.graph.getNodeById(id);
    node.title = _meta?.title ?? node.title;
    const named = Object.values(inputs).filter((value) => files[value]);
    if (named.length) node.properties.models = named.map((name) => ({ name, ...files[name] }));
  }
}"""

LAY_OUT = """([notes, gap, limit, photo, pictures, reports, ending, groups, changed]) => {
  const depth = new Map();
  const depthOf = (node) => {
    if (depth.has(node)) return depth.get(node);
    depth.set(node, 0);
    const sources = node.inputs.map((_, slot) => node.getInputNode(slot)).filter(Boolean);
    depth.set(node, Math.max(0, ...sources.map((source) => depthOf(source) + 1)));
    return depth.get(node);
  };
  const nodes = [...app.graph._nodes].sort((a, b) => depthOf(a) - depthOf(b) || a.id - b.id);
  const sections = Object.entries(groups);
  const sectionOf = (type) => {
    const index = sections.findIndex(([, columns]) => columns.flat().includes(type));
    return index < 0 ? sections.length - 1 : index;
  };
  let x = 0;
  for (const [index, [title, columns]] of sections.entries()) {
    const columnOf = (type) => columns.findIndex((types) => types.includes(type));
    const rank = (node) => columns.flat().indexOf(node.type);
    const own = nodes.filter((node) => sectionOf(node.type) === index).sort((a, b) => rank(a) - rank(b));
    if (!own.length) continue;
    const left = x;
    let y = 0, width = 0, bottom = 0, column = columnOf(own[0].type);
    for (const node of own) {
      const size = node.computeSize();
      const widgets = 40 + 10 * (node.widgets?.length ?? 0); // Nodes 2.0 draws them higher
      const shown = pictures.includes(node.type) ? 280 : reports[node.type] ?? widgets;
      const widest = node.subgraph ? 460 : reports[node.type] ? 360 : 300;
      node.size = [Math.max(widest, size[0]), size[1] + shown + (node.subgraph ? 320 : 0)];
      if (node.type === "LoadImage") node.size[1] = photo; // its own size depends on whether its photo is here yet
      const isFull = y + node.size[1] > limit || columnOf(node.type) !== column;
      if (y > 0 && isFull) [x, y, width] = [x + width + gap[0], 0, 0];
      column = columnOf(node.type);
      node.pos = [x, y];
      bottom = Math.max(bottom, y + node.size[1]);
      y += node.size[1] + gap[1];
      width = Math.max(width, node.size[0]);
      if (ending.includes(node.type) || node.subgraph) y = limit; // reports float beneath a subgraph
      if (changed.includes(node.type) || node.subgraph) [node.color, node.bgcolor] = ["#232", "#353"];
    }
    const group = new LiteGraph.LGraphGroup(title);
    group.pos = [left - 25, -95];
    group.size = [x + width - left + 50, bottom + 125];
    app.graph.add(group);
    x += width + 2 * gap[0];
  }
  let y = 0;
  for (const [title, text] of notes) {
    const note = LiteGraph.createNode("MarkdownNote");
    note.title = "Note: " + title;
    note.widgets[0].value = text;
    const lines = text.split("\\n").map((line) => Math.ceil(line.length / 66) || 0.6);
    note.size = [440, 70 + 15 * lines.reduce((sum, num) => sum + num)];
    note.pos = [-520, y];
    app.graph.add(note);
    y += note.size[1] + gap[1];
  }
  const bottom = Math.max(...app.graph._nodes.map((node) => node.pos[1] + node.size[1]));
  const scale = Math.min(1, Math.max(0.6, Math.min(1780 / (x + 520), 900 / (bottom + 100))));
  app.canvas.ds.scale = scale; // what is seen first: the note and the beginning of the graph, or all of it
  app.canvas.ds.offset = [90 / scale + 540, 90 / scale + 60];
  return app.graph.serialize();
}"""


def open_prompt(page: Page, name: str, prompt: dict) -> None:
    """Opens an API workflow, with its titles, and with the places of its public files."""
    page.evaluate("async ([prompt, name]) => { await app.loadApiJson(prompt, name) }", [prompt, name])
    files = {file: {"url": f"{place}/{file}", "directory": folder} for file, (folder, place) in PUBLIC_FILES.items()}
    page.evaluate(NAME, [prompt, files])


def laid_out(page: Page, prompt: dict) -> dict:
    """Arranges the graph that the editor shows, and returns it in the editor's own format."""
    notes = [[node["_meta"]["title"], node["_meta"]["note"]] for node in prompt.values() if "note" in node["_meta"]]
    gaps = [COLUMN_GAP, ROW_GAP]
    shown = [PICTURES, REPORTS_PX, ENDING_A_COLUMN, GROUPS, CHANGED_BY_ARTISTS]
    return page.evaluate(LAY_OUT, [notes, gaps, COLUMN_PX, PHOTO_PX, *shown])


def write_editor_workflows() -> None:
    BLUEPRINTS_FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place_stand_ins(base)
        from editor import Editor, open_browser

        with ComfyServer(base, packs=PACKS) as server, open_browser() as browser:
            for path in sorted((WORKFLOWS / "api").glob("*.json")):
                # Each workflow gets a new page. In a page that has shown another workflow, notes can keep the old text.
                page = browser.new_page(viewport={"width": 1920, "height": 1080})
                Editor(page, server.address, a_node="FPGA_LoadRepControlNet")
                prompt = json.loads(path.read_text(encoding="utf-8"))
                open_prompt(page, path.stem, prompt)
                if blueprint := BLUEPRINTS.get(path.stem):
                    write(BLUEPRINTS_FOLDER / f"{blueprint.name}.json", fold(page, blueprint))
                write(WORKFLOWS / path.name, laid_out(page, prompt))
                page.close()


def write(file: Path, workflow: dict) -> None:
    file.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_editor_workflows()
