/**
 * Keeps the pack's elements on the nodes that they belong to. After an undo, or in a workflow whose nodes have the same
 * ids, Nodes 2.0 goes on showing the elements of the nodes that are gone.
 *
 * @typedef {import("./host.js").Node} Node
 */

import { app } from "./host.js";

const FRAMES = 20;
/** How long the editor may take to draw the nodes of a graph. */

/** @type {Map<HTMLElement, Node>} */
const elements = new Map();

/**
 * @param {Node} node
 * @param {HTMLElement} element of one of its widgets; its class tells it from those of the node's other widgets
 */
export function keepOn(node, element) {
  elements.set(element, node);
  mount();
}

function mountNow() {
  for (const [element, node] of elements) {
    if (!node.graph) continue;
    if (node.graph.getNodeById(node.id) !== node) elements.delete(element);
    else if (!element.isConnected && node.graph === app.canvas.graph) {
      const place = document.querySelector(`[data-node-id="${node.id}"] .${element.className}`);
      place?.replaceWith(element);
    }
  }
}

function mount(frames = FRAMES) {
  mountNow();
  if (frames > 0) requestAnimationFrame(() => mount(frames - 1));
}

app.registerExtension({
  name: "fpga-portrait.mounting",
  setup() {
    app.canvas.canvas.addEventListener("litegraph:set-graph", () => mount());
  },
  afterConfigureGraph() {
    mount();
  },
});
