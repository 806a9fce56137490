/**
 * Draws a drawing as SVG. What can be dragged carries `data-part`: head, corner or joint, and `data-index`.
 *
 * @typedef {import("./drawing.js").Drawing} Drawing
 * @typedef {import("./drawing.js").Size} Size
 */

import { LIMBS } from "./drawing.js";

const SVG = "http://www.w3.org/2000/svg";
export const COLORS = ["#4cc9f0", "#f9a826", "#80ed99", "#f15bb5", "#9b8cff", "#ff6b6b", "#e9e36b", "#5eead4"];

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string | number>} attributes
 * @param {Element[]} children
 */
export function svg(name, attributes = {}, children = []) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/**
 * @param {Drawing} drawing
 * @param {Size} size
 * @param {number} selected index of a person, or -1
 * @param {string} [picture] address of a picture to draw on
 * @returns {SVGElement[]}
 */
export function drawn(drawing, size, selected, picture) {
  const { width, height } = size;
  const unit = Math.max(width, height) / 100;
  const ground = svg("rect", { width, height, fill: "#26262b" });
  const behind = picture ? [svg("image", { href: picture, width, height, opacity: 0.75, preserveAspectRatio: "none" })] : [];
  const people = drawing.people.map((person, index) => {
    const color = COLORS[index % COLORS.length];
    const at = (/** @type {number} */ n) => {
      const point = person.pose[n];
      return point && { x: point[0] * width, y: point[1] * height };
    };
    const limbs = LIMBS.flatMap(([a, b]) => {
      const [from, to] = [at(a), at(b)];
      if (!from || !to) return [];
      const ends = { x1: from.x, y1: from.y, x2: to.x, y2: to.y };
      return [svg("line", { ...ends, stroke: color, "stroke-width": unit * 0.8, "stroke-linecap": "round", opacity: 0.7 })];
    });
    const joints = person.pose.flatMap((_, joint) => {
      const point = at(joint);
      const part = { "data-part": "joint", "data-index": index, "data-joint": joint };
      const looks = { r: unit * (index === selected ? 1.6 : 1.2), fill: color, stroke: "#111", "stroke-width": unit * 0.25 };
      return point ? [svg("circle", { cx: point.x, cy: point.y, ...looks, ...part })] : [];
    });
    const [x, y] = [person.head[0] * width, person.head[1] * height];
    const [w, h] = [person.head[2] * width, person.head[3] * height];
    const head = svg("rect", {
      x, y, width: w, height: h, fill: color, "fill-opacity": 0.25, stroke: color,
      "stroke-width": unit * (index === selected ? 1 : 0.5), "data-part": "head", "data-index": index,
    });
    const corners = index === selected ? [[x, y], [x + w, y], [x, y + h], [x + w, y + h]] : [];
    const handles = corners.map(([cx, cy], corner) => svg("rect", {
      x: cx - unit * 1.4, y: cy - unit * 1.4, width: unit * 2.8, height: unit * 2.8, fill: "#fff",
      "data-part": "corner", "data-index": index, "data-corner": corner,
    }));
    const label = svg("text", {
      x, y: y > unit * 6 ? y - unit : y + h + unit * 4.5, fill: color, "font-size": unit * 4.5, "font-weight": 600,
      "font-family": "sans-serif", "paint-order": "stroke", stroke: "#000", "stroke-width": unit * 0.8,
    });
    label.textContent = person.name || `${index + 1}`;
    return svg("g", {}, [...limbs, head, ...joints, ...handles, label]);
  });
  return [ground, ...behind, ...people];
}
