import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const WIDGET = "fpga_status";
const WARNING_MS = 30000;

/** Warnings of the current run, by the id of the node that gave them. */
const warnings = {};

/** Shows lines on a node itself: the report of its run, for example the chosen mode or FaceSim, and its warnings. */
function showStatus(node, lines) {
  let widget = node.widgets?.find((candidate) => candidate.name === WIDGET);
  if (!widget) {
    widget = ComfyWidgets.STRING(node, WIDGET, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false; // not saved in workflows or prompts
    widget.options.serialize = false;
    if (widget.inputEl) widget.inputEl.readOnly = true;
  }
  widget.value = [...(warnings[node.id] ?? []).map((text) => `Warning: ${text}`), ...lines].join("\n");
  node.setSize?.([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  app.graph.setDirtyCanvas(true);
}

/** Shows a warning that is given while a node runs, on that node (a sampler, for example) and as a message. */
function showWarning({ node: id, text }) {
  const node = app.graph.getNodeById(id); // null inside a subgraph that is not open: the message is still shown
  app.extensionManager.toast.add({
    severity: "warn",
    summary: node ? `FPGA Portrait: ${node.title}` : "FPGA Portrait",
    detail: text,
    life: WARNING_MS,
  });
  if (!node) return;
  warnings[id] = [...(warnings[id] ?? []), text];
  showStatus(node, []);
}

app.registerExtension({
  name: "fpga-portrait.status",
  setup() {
    api.addEventListener("execution_start", () => {
      for (const id of Object.keys(warnings)) {
        const node = app.graph.getNodeById(id);
        delete warnings[id];
        if (node && !node.type.startsWith("FPGA_")) showStatus(node, []);
      }
    });
    api.addEventListener("fpga.warning", ({ detail }) => showWarning(detail));
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("FPGA_")) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      if (output?.text?.length) showStatus(this, output.text);
    };
  },
});
