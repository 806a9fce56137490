/**
 * The box on a node that shows its report: warnings first, in a colour, then what was done.
 *
 * @typedef {import("../host.js").Node} Node
 * @typedef {import("./store.js").Report} Report
 */

import { app } from "../host.js";
import { keepOn } from "../mounting.js";
import { textsOf } from "../texts.js";

const WIDGET = "fpga_report";
const LINE_PX = 16;
const CHARACTER_PX = 6.4;
const MOST_PX = 320;

const STYLE = `
.fpga-report {
  box-sizing: border-box; overflow: auto; padding: 4px 8px; border-radius: 4px; white-space: pre-wrap;
  font: 12px/${LINE_PX}px sans-serif; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);
  user-select: text;
}
.fpga-report p { margin: 0; overflow-wrap: anywhere; }
.fpga-report .fpga-warning {
  margin-bottom: 4px; padding: 2px 6px; border-left: 3px solid #f5a524; color: #ffd48a; background: #f5a52422;
}
.fpga-report .fpga-progress { opacity: 0.8; }
.fpga-report .fpga-title { margin-top: 4px; font-weight: bold; }
.fpga-outside { position: absolute; top: 0; left: 0; transform-origin: 0 0; pointer-events: none; opacity: 0.9; }
.fpga-report[hidden] { display: none; }
`;

/** @type {WeakMap<Node, HTMLElement>} */
const boxes = new WeakMap();

const sheet = new CSSStyleSheet();
sheet.replaceSync(STYLE);
document.adoptedStyleSheets.push(sheet);

/** Returns an empty box, named for screen readers. */
export function newBox() {
  const box = document.createElement("div");
  box.className = "fpga-report";
  box.role = "status";
  void textsOf("report").then((text) => (box.ariaLabel = text("label")));
  return box;
}

/** @param {Node} node */
function boxOf(node) {
  const known = boxes.get(node);
  if (known) return known;
  const box = newBox();
  const widget = node.addDOMWidget(WIDGET, WIDGET, box, {
    serialize: false, // neither in workflows nor in prompts
    hideOnZoom: false,
    getMinHeight: () => heightOf(box, node),
  });
  widget.serialize = false;
  keepOn(node, box);
  void textsOf("report").then((text) => (widget.label = text("label")));
  boxes.set(node, box);
  return box;
}

/**
 * The height that the text needs. It is estimated, because a node that is out of sight has no layout.
 * @param {HTMLElement} box
 * @param {Node} node
 */
function heightOf(box, node) {
  if (!box.querySelector("p")) return 0;
  const perLine = Math.max((node.size[0] - 50) / CHARACTER_PX, 10);
  const lines = [...box.querySelectorAll("p")].flatMap((part) => (part.textContent ?? "").split("\n"));
  const rows = lines.reduce((sum, line) => sum + Math.max(Math.ceil(width(line) / perLine), 1), 0);
  return Math.min(rows * LINE_PX + 8 * box.querySelectorAll(".fpga-warning").length + 28, MOST_PX);
}

/** The width of a line in Latin characters; a Chinese one is about twice as wide. @param {string} line */
function width(line) {
  return [...line].reduce((sum, character) => sum + (character > "\u2e80" ? 2 : 1), 0);
}

/**
 * @param {string} text
 * @param {string} kind
 */
export function paragraph(text, kind) {
  const part = document.createElement("p");
  part.className = kind;
  part.textContent = text;
  return part;
}

/**
 * @param {Node} node
 * @param {HTMLElement[]} parts what it says
 */
export function fill(node, parts) {
  if (!parts.length && !boxes.has(node)) return;
  const box = boxOf(node);
  box.hidden = !parts.length;
  box.replaceChildren(...parts);
  box.style.minHeight = `${heightOf(box, node)}px`;
  const [, height] = node.computeSize();
  if (height > node.size[1]) node.setSize([node.size[0], height]);
  app.canvas?.setDirty(true, true);
}

/** @param {Report} report */
export function partsOf({ text, warnings }) {
  const done = text ? [paragraph(text, "fpga-done")] : [];
  return [...warnings.map((warning) => paragraph(warning, "fpga-warning")), ...done];
}

/** @param {string} words what a node is doing */
export function progressOf(words) {
  return [paragraph(words, "fpga-progress")];
}
