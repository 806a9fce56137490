"""`dev.py workflows` makes the editor write each workflow of workflows/api/ in its own format.

The API format is the source, so that the API and the editor use the same graph. Nodes are arranged in columns by their
distance from the loaders, with room for the pictures and reports that they show after a run. A node's `_meta` holds its
title and, optionally, a `note` that is shown beside it in the editor.
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
COLUMN_GAP, ROW_GAP = 80, 60
PICTURES = ("LoadImage", "PreviewImage", "SaveImage", "MaskPreview")
"""The nodes that show a picture."""

REPORTS_PX = {
    "FPGA_ApplyRepControlNet": 90,
    "FPGA_EncodeIdentity": 90,
    "FPGA_LoadFaceAnalysis": 110,
    "FPGA_LoadIdentityAdapter": 90,
    "FPGA_MakeCast": 140,
    "FPGA_RestoreFaces": 300,
    "FPGA_ScoreCast": 160,
}
"""The nodes that show a report, and its height."""

LAY_OUT = """([prompt, gap, pictures, reports]) => {
  const nodes = new Map(app.graph._nodes.map((node) => [String(node.id), node]));
  const depth = new Map();
  const depthOf = (id) => {
    if (depth.has(id)) return depth.get(id);
    depth.set(id, 0);
    const sources = Object.values(prompt[id].inputs).filter(Array.isArray).map(([source]) => depthOf(source) + 1);
    depth.set(id, Math.max(0, ...sources));
    return depth.get(id);
  };
  const consumers = (id) => Object.keys(prompt).filter((other) =>
    Object.values(prompt[other].inputs).some((value) => Array.isArray(value) && value[0] === id));
  const columnOf = (id) => {
    const isSource = !Object.values(prompt[id].inputs).some(Array.isArray);
    return isSource ? Math.min(...consumers(id).map(depthOf)) - 1 : depthOf(id); // a source: beside its first user
  };
  const columns = [];
  for (const id of Object.keys(prompt)) (columns[columnOf(id)] ??= []).push(nodes.get(id));
  let x = 0;
  for (const column of columns) {
    let y = 0, width = 0;
    for (const node of column) {
      const size = node.computeSize();
      const shown = pictures.includes(node.type) ? 280 : reports[node.type] ?? 0;
      node.size = [Math.max(reports[node.type] ? 360 : 300, size[0]), size[1] + shown];
      node.pos = [x, y];
      y += node.size[1] + gap[1];
      width = Math.max(width, node.size[0]);
    }
    x += width + gap[0];
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
  app.canvas.ds.scale = 0.62; // what is seen first: the note and the beginning of the graph
  app.canvas.ds.offset = [600, 120];
  return app.graph.serialize();
}"""


def as_editor_workflow(page: Page, name: str, prompt: dict) -> dict:
    """Returns an API workflow in the editor's own format, with its nodes arranged."""
    page.evaluate("async ([prompt, name]) => { await app.loadApiJson(prompt, name) }", [prompt, name])
    return page.evaluate(LAY_OUT, [prompt, [COLUMN_GAP, ROW_GAP], PICTURES, REPORTS_PX])


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
