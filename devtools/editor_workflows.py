"""`dev.py workflows` makes the editor write each workflow of workflows/api/ in its own format.

The API format is the source, so that the API and the editor use the same graph. Nodes are arranged in groups, which are
read from left to right: models, photos, prompt, result. Within a group, they fill columns in the order in which they
run, with room for the pictures and reports that they show after a run. Nodes whose reports grow end their column. What
an artist changes is green. A node's `_meta` holds its title and, optionally, a `note` that is shown beside the graph.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from .launch import ROOT
from .server import ComfyServer
from .stand_ins import PACKS, place_stand_ins

WORKFLOWS = ROOT / "workflows"
COLUMN_GAP, ROW_GAP = 70, 50
COLUMN_PX = 1300
"""The height at which a column is full."""
PICTURES = ("LoadImage", "PreviewImage", "SaveImage", "MaskPreview")
"""The nodes that show a picture."""

REPORTS_PX = {
    "FPGA_ApplyCast": 120,
    "FPGA_ApplyCastControlNet": 120,
    "FPGA_ApplyRepControlNet": 90,
    "FPGA_EncodeIdentity": 90,
    "FPGA_LoadFaceAnalysis": 110,
    "FPGA_LoadIdentityAdapter": 90,
    "FPGA_MakeCast": 170,
    "FPGA_RestoreFaces": 330,
    "FPGA_ScoreCast": 190,
}
"""The nodes that show a report, and its height."""

ENDING_A_COLUMN = ("FPGA_ApplyCast", "FPGA_ApplyCastControlNet", "FPGA_MakeCast", "FPGA_RestoreFaces")
"""The nodes whose reports grow with warnings and people, so that nothing stands below them."""

GROUPS = {
    "Models": (
        "CheckpointLoaderSimple", "ControlNetLoader", "FPGA_LoadFaceAnalysis", "FPGA_LoadIdentityAdapter",
        "FPGA_LoadRepControlNet", "UpscaleModelLoader",
    ),
    "1 Your photos": ("LoadImage", "FPGA_EncodeIdentity", "FPGA_DetectFaces", "FPGA_MakeCast"),
    "2 Prompt": ("CLIPTextEncode", "EmptyLatentImage", "FPGA_DrawLandmarks"),
    "3 Result": (),
}  # fmt: skip
"""The groups from left to right, and the nodes of each. All other nodes belong to the last."""

CHANGED_BY_ARTISTS = ("LoadImage", "CLIPTextEncode", "FPGA_MakeCast")

HUB, MAIN = "https://huggingface.co", "resolve/main"
PUBLIC_FILES = {
    "v1-5-pruned-emaonly-fp16.safetensors": ("checkpoints", f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/{MAIN}"),
    "control_v11p_sd15_openpose_fp16.safetensors": (
        "controlnet",
        f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/{MAIN}",
    ),
    "ip-adapter-faceid_sd15.bin": ("ipadapter", f"{HUB}/h94/IP-Adapter-FaceID/{MAIN}"),
    "RestoreFormer.pth": ("upscale_models", "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4"),
}
"""The public files that workflows name: their folder in `models`, and where the editor offers to download them."""

LAY_OUT = """([prompt, gap, limit, pictures, reports, ending, groups, changed, files]) => {
  const nodes = new Map(app.graph._nodes.map((node) => [String(node.id), node]));
  const depth = new Map();
  const depthOf = (id) => {
    if (depth.has(id)) return depth.get(id);
    depth.set(id, 0);
    const sources = Object.values(prompt[id].inputs).filter(Array.isArray).map(([source]) => depthOf(source) + 1);
    depth.set(id, Math.max(0, ...sources));
    return depth.get(id);
  };
  const ids = Object.keys(prompt).sort((a, b) => depthOf(a) - depthOf(b));
  const sections = Object.entries(groups);
  const sectionOf = (type) => {
    const index = sections.findIndex(([, types]) => types.includes(type));
    return index < 0 ? sections.length - 1 : index;
  };
  let x = 0;
  for (const [index, [title]] of sections.entries()) {
    const own = ids.map((id) => nodes.get(id)).filter((node) => sectionOf(node.type) === index);
    if (!own.length) continue;
    const left = x;
    let y = 0, width = 0, bottom = 0;
    for (const node of own) {
      const size = node.computeSize();
      const shown = pictures.includes(node.type) ? 280 : reports[node.type] ?? 0;
      node.size = [Math.max(reports[node.type] ? 360 : 300, size[0]), size[1] + shown];
      if (y > 0 && y + node.size[1] > limit) [x, y, width] = [x + width + gap[0], 0, 0];
      node.pos = [x, y];
      bottom = Math.max(bottom, y + node.size[1]);
      y += node.size[1] + gap[1];
      width = Math.max(width, node.size[0]);
      if (ending.includes(node.type)) y = limit;
      if (changed.includes(node.type)) [node.color, node.bgcolor] = ["#232", "#353"];
      const named = Object.values(prompt[node.id].inputs).filter((value) => files[value]);
      if (named.length) node.properties.models = named.map((name) => ({ name, ...files[name] }));
    }
    const group = new LiteGraph.LGraphGroup(title);
    group.pos = [left - 25, -95];
    group.size = [x + width - left + 50, bottom + 125];
    app.graph.add(group);
    x += width + 2 * gap[0];
  }
  let y = 0;
  for (const [id, { _meta }] of Object.entries(prompt)) {
    nodes.get(id).title = _meta?.title ?? nodes.get(id).title;
    if (!_meta?.note) continue;
    const note = LiteGraph.createNode("MarkdownNote");
    note.title = "Note: " + nodes.get(id).title;
    note.widgets[0].value = _meta.note;
    const lines = _meta.note.split("\\n").map((line) => Math.ceil(line.length / 66) || 0.6);
    note.size = [440, 70 + 15 * lines.reduce((sum, num) => sum + num)];
    note.pos = [-520, y];
    app.graph.add(note);
    y += note.size[1] + gap[1];
  }
  app.canvas.ds.scale = 0.6; // what is seen first: the note and the beginning of the graph
  app.canvas.ds.offset = [640, 200];
  return app.graph.serialize();
}"""


def as_editor_workflow(page: Page, name: str, prompt: dict) -> dict:
    """Returns an API workflow in the editor's own format, with its nodes arranged."""
    page.evaluate("async ([prompt, name]) => { await app.loadApiJson(prompt, name) }", [prompt, name])
    files = {file: {"url": f"{place}/{file}", "directory": folder} for file, (folder, place) in PUBLIC_FILES.items()}
    gaps = [COLUMN_GAP, ROW_GAP]
    return page.evaluate(
        LAY_OUT,
        [prompt, gaps, COLUMN_PX, PICTURES, REPORTS_PX, ENDING_A_COLUMN, GROUPS, CHANGED_BY_ARTISTS, files],
    )


def write_editor_workflows() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place_stand_ins(base)
        from editor import Editor, open_browser

        with ComfyServer(base, packs=PACKS) as server, open_browser() as browser:
            for path in sorted((WORKFLOWS / "api").glob("*.json")):
                # Each workflow gets a new page. In a page that has shown another workflow, notes can keep the old text.
                page = browser.new_page(viewport={"width": 1920, "height": 1080})
                Editor(page, server.address, a_node="FPGA_LoadRepControlNet")
                workflow = as_editor_workflow(page, path.stem, json.loads(path.read_text(encoding="utf-8")))
                text = json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"
                (WORKFLOWS / path.name).write_text(text, encoding="utf-8")
                page.close()


if __name__ == "__main__":
    write_editor_workflows()
