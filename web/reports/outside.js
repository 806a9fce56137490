/**
 * Shows beneath a folded part of the graph what the nodes inside it found. The node of a subgraph takes no widgets but
 * those of its inputs, so its box floats beneath it.
 *
 * @typedef {import("../host.js").Node} Node
 */

import { app } from "../host.js";
import { newBox, paragraph } from "./box.js";

const GAP_PX = 8;

/**
 * @typedef {object} Outside
 * @property {HTMLElement} box
 * @property {Map<string, HTMLElement[]>} parts what each node inside says, by its id in the prompt
 */

/** @type {Map<Node, Outside>} */
const folded = new Map();

/**
 * @param {Node} node the subgraph's
 * @param {string} executionId of the node inside
 * @param {string} title of the node inside
 * @param {HTMLElement[]} said what it says now
 */
export function showOutside(node, executionId, title, said) {
  const known = folded.get(node);
  if (!known && !said.length) return;
  const { box, parts } = known ?? begin(node);
  if (said.length) parts.set(executionId, [paragraph(title, "fpga-title"), ...said]);
  else parts.delete(executionId);
  box.replaceChildren(...[...parts.values()].flat());
}

/**
 * @param {Node} node
 * @returns {Outside}
 */
function begin(node) {
  const box = newBox();
  box.classList.add("fpga-outside");
  app.canvas.canvas.parentElement?.append(box);
  const outside = { box, parts: new Map() };
  folded.set(node, outside);
  if (folded.size === 1) requestAnimationFrame(follow);
  return outside;
}

/** Moves each box with its node, frame by frame, and removes those whose node is gone. */
function follow() {
  for (const [node, { box, parts }] of folded) {
    if (node.graph?.getNodeById(node.id) !== node) {
      box.remove();
      folded.delete(node);
      continue;
    }
    box.hidden = !parts.size || node.graph !== app.canvas.graph || Boolean(node.flags?.collapsed);
    if (!box.hidden) place(node, box);
  }
  if (folded.size) requestAnimationFrame(follow);
}

/**
 * @param {Node} node
 * @param {HTMLElement} box
 */
function place(node, box) {
  const { offset, scale } = app.canvas.ds;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const corner = box.parentElement?.getBoundingClientRect() ?? canvas;
  const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect(); // by Nodes 2.0
  const left = canvas.left - corner.left + (node.pos[0] + offset[0]) * scale;
  const bottom = drawn?.height
    ? drawn.bottom - corner.top
    : canvas.top - corner.top + (node.pos[1] + node.size[1] + offset[1]) * scale;
  box.style.width = `${node.size[0]}px`;
  box.style.transform = `translate(${left}px, ${bottom + GAP_PX * scale}px) scale(${scale})`;
}
