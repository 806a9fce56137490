/**
 * Keeps the wires of nodes whose inputs grow (Make Cast, Encode Identity) when they are pasted, unpacked, or lose a wire.
 *
 * The editor gives a new node its first two growing inputs, and appends the others that the copy has behind the widgets.
 * It then connects the wires by the positions that the inputs had in the original, where another input is now. So the
 * inputs of a copy are put back into the order in which they were saved.
 *
 * When a wire is unplugged, the editor moves the later ones up, into the places and strengths of others. It does so only
 * beyond the inputs that a node always has, so that number is set to all of them once the node is there.
 */

import { app, PREFIX } from "./host.js";

/**
 * @param {import("./host.js").Node} node
 * @param {string[]} saved names of the inputs, in their saved order; inputs that are not among them come last
 */
function restoreOrder(node, saved) {
  const rank = new Map(saved.map((name, position) => [name, position]));
  const position = (/** @type {{name: string}} */ input) => rank.get(input.name) ?? saved.length;
  const ordered = [...node.inputs].sort((a, b) => position(a) - position(b)); // a stable sort
  node.inputs.splice(0, node.inputs.length, ...ordered);
}

/** @param {import("./host.js").NodeDefinition} definition */
function hasGrowingInput({ input }) {
  const specifications = Object.values({ ...input?.required, ...input?.optional });
  return specifications.some(([type]) => type === "COMFY_AUTOGROW_V3");
}

app.registerExtension({
  name: "fpga-portrait.growing-inputs",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX) || !hasGrowingInput(nodeData)) return;
    const { configure } = nodeType.prototype;
    nodeType.prototype.configure = function (/** @type {import("./host.js").SavedNode} */ saved) {
      const names = saved.inputs?.map(({ name }) => name) ?? []; // the editor's own configure changes their order
      configure.call(this, saved);
      restoreOrder(/** @type {import("./host.js").Node} */ (this), names);
    };
  },
  nodeCreated(created) {
    const node = /** @type {import("./host.js").Node} */ (created);
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    for (const group of Object.values(node.comfyDynamic?.autogrow ?? {})) group.min = Infinity;
  },
});
