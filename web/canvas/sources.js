/**
 * What the nodes around Make Cast say: the names of its people, the picture behind its canvas, and the size of both.
 *
 * @typedef {import("../host.js").Node} Node
 * @typedef {import("./drawing.js").Size} Size
 */

import { api } from "../host.js";

/**
 * The node that a wire into an input comes from.
 * @param {Node} node
 * @param {string} name of the input
 * @returns {Node | undefined}
 */
function sourceOf(node, name) {
  const slot = node.inputs.findIndex((input) => input.name === name);
  const source = slot < 0 || !node.graph ? null : node.getInputNode(slot); // a copy may not be in a graph yet
  return /** @type {Node | null} */ (source) ?? undefined;
}

/**
 * @param {Node} node
 * @param {string} name
 */
export function widgetValue(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

/**
 * The names of the people, in their order; empty for a person whose name is not known before a run.
 * @param {Node} node Make Cast
 * @returns {string[]}
 */
export function namesOfPeople(node) {
  const inputs = node.inputs.filter((input) => input.name.startsWith("identities.") && input.link != null);
  return inputs.map((input) => String(widgetValue(sourceOf(node, input.name) ?? node, "name") ?? "").trim());
}

/**
 * The address of the picture behind the canvas; undefined if none is connected, or if it is made during the run.
 * @param {Node} node Make Cast
 * @returns {string | undefined}
 */
export function pictureBehind(node) {
  const source = sourceOf(node, "image");
  const file = source?.type === "LoadImage" ? widgetValue(source, "image") : undefined;
  if (typeof file !== "string") return source?.imgs?.[0]?.src;
  const [, subfolder, filename] = /** @type {RegExpMatchArray} */ (file.match(/^(?:(.*)\/)?(.*?)(?: \[\w+\])?$/));
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder: subfolder ?? "", type: "input" })}`);
}

/**
 * @param {Node} node Make Cast
 * @returns {Size} as its widgets say
 */
export function sizeOf(node) {
  const [width, height] = ["width", "height"].map((name) => Math.max(Number(widgetValue(node, name)) || 512, 16));
  return { width, height };
}
