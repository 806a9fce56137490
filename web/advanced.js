/**
 * Folds the advanced widgets of the pack's nodes away in the classic renderer too, behind a button. Nodes 2.0 has its
 * own.
 *
 * @typedef {import("./host.js").Node} Node
 */

import { app, PREFIX } from "./host.js";
import { textsOf } from "./texts.js";

const BUTTON = "fpga_advanced";

/** @param {Node} node */
function fit(node) {
  node.setSize([node.size[0], node.computeSize()[1]]);
  app.canvas?.setDirty(true, true);
}

app.registerExtension({
  name: "fpga-portrait.advanced",
  async nodeCreated(created) {
    const node = /** @type {Node} */ (created);
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    const advanced = (node.widgets ?? []).filter(
      ({ options }) => /** @type {{advanced?: boolean} | undefined} */ (options)?.advanced,
    );
    if (!advanced.length) return;
    // @ts-expect-error - not in the published types
    if (LiteGraph.vueNodesMode) return;
    const text = await textsOf("advanced");
    const button = node.addWidget("button", BUTTON, "", () => fold(!advanced[0].hidden));
    button.serialize = false;
    fold(true);

    /** @param {boolean} isFolded */
    function fold(isFolded) {
      for (const widget of advanced) widget.hidden = isFolded;
      button.label = text(isFolded ? "show" : "hide");
      fit(node);
    }
  },
});
