import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const WIDGET = "fpga_status";

/** Shows the report of a run on the node itself, for example the chosen mode, the places of a cast, or FaceSim. */
function showStatus(node, lines) {
  let widget = node.widgets?.find((candidate) => candidate.name === WIDGET);
  if (!widget) {
    widget = ComfyWidgets.STRING(node, WIDGET, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false; // not saved in workflows or prompts
    widget.options.serialize = false;
    if (widget.inputEl) widget.inputEl.readOnly = true;
  }
  widget.value = lines.join("\n");
  node.setSize?.([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  app.graph.setDirtyCanvas(true);
}

app.registerExtension({
  name: "fpga-portrait.status",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("FPGA_")) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      if (output?.text?.length) showStatus(this, output.text);
    };
  },
});
