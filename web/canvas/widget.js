/**
 * The canvas of Make Cast: people are drawn, moved, named and posed with the mouse. It is one element that both of the
 * editor's renderers show.
 *
 * @typedef {import("../host.js").Node} Node
 * @typedef {import("./drawing.js").Drawing} Drawing
 * @typedef {import("./drawing.js").Person} Person
 * @typedef {import("./drawing.js").Point} Point
 */

import { api, app } from "../host.js";
import { keepOn } from "../mounting.js";
import { textsOf } from "../texts.js";
import { EMPTY, asDrawing, boxBetween, movedBox, round, standingBody, withHead, withPerson } from "./drawing.js";
import { namesOfPeople, pictureBehind, sizeOf } from "./sources.js";
import { drawn, svg } from "./view.js";

const MIN_SIDE = 0.02;
const CLICK_HEIGHT = 0.16;
/** The height of a head that a click without a drag makes, as a fraction of the picture. */

const STYLE = `
.fpga-canvas { display: flex; flex-direction: column; gap: 4px; min-height: 260px; font: 12px sans-serif; }
.fpga-canvas svg { flex: 1; min-height: 0; width: 100%; touch-action: none; outline: none; cursor: crosshair; }
.fpga-canvas [data-part=head], .fpga-canvas [data-part=joint] { cursor: move; }
.fpga-canvas [data-part=corner] { cursor: nwse-resize; }
.fpga-canvas-tools { display: flex; gap: 6px; align-items: center; height: 24px; color: var(--input-text, #ddd); }
.fpga-canvas-tools > * { font: inherit; color: inherit; }
.fpga-canvas-tools input:not([type=checkbox]) { flex: 1; min-width: 40px; }
.fpga-canvas-tools input, .fpga-canvas-tools button {
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px;
  padding: 1px 6px;
}
.fpga-canvas-hint { flex: 1; opacity: 0.7; }
`;

/**
 * Returns the drawing that a drag leads to from the one at its start.
 * @typedef {(to: Point) => Drawing} Drag
 */

export class CanvasWidget {
  /** @param {Node} node Make Cast */
  constructor(node) {
    this.node = node;
    /** @type {Drawing} */
    this.drawing = EMPTY;
    this.selected = -1;
    this.picture = "";
    this.size = { width: 512, height: 512 };
    this.surface = svg("svg", { tabindex: 0 });
    this.tools = document.createElement("div");
    this.tools.className = "fpga-canvas-tools";
    this.element = document.createElement("div");
    this.element.className = "fpga-canvas";
    const style = document.createElement("style");
    style.textContent = STYLE;
    this.element.append(style, this.tools, this.surface);
    this.surface.addEventListener("pointerdown", (event) => this.press(event));
    this.surface.addEventListener("dblclick", () => this.tools.querySelector("input")?.focus());
    this.surface.addEventListener("keydown", (event) => this.pressKey(event));
    this.element.addEventListener("pointerenter", () => this.refresh());
    void textsOf("canvas").then((texts) => {
      this.text = texts;
      this.surface.setAttribute("aria-label", texts("label"));
      this.showTools();
    });
    this.refresh();
  }

  /** @type {(key: string) => string} */
  text = (key) => key;

  /** @param {unknown} value */
  set(value) {
    this.drawing = asDrawing(value);
    this.selected = Math.min(this.selected, this.drawing.people.length - 1);
    this.refresh();
  }

  /** Takes a change by the user, and lets the editor remember it for undo. @param {Drawing} drawing */
  change(drawing) {
    this.drawing = drawing;
    this.draw();
  }

  remember() {
    this.node.graph?.afterChange?.();
    app.canvas?.setDirty(true, true);
  }

  /** Reads the size and the picture again, which other widgets and nodes decide. */
  refresh() {
    const picture = pictureBehind(this.node) ?? "";
    if (picture !== this.picture) {
      this.picture = picture;
      const image = new Image();
      image.onload = () => {
        if (picture === this.picture) this.show({ width: image.naturalWidth, height: image.naturalHeight });
      };
      image.src = picture;
    }
    if (!picture) this.show(sizeOf(this.node));
    else this.draw();
    this.showTools();
  }

  /** @param {import("./drawing.js").Size} size */
  show(size) {
    this.size = size;
    this.draw();
  }

  draw() {
    this.surface.setAttribute("viewBox", `0 0 ${this.size.width} ${this.size.height}`);
    this.surface.replaceChildren(...drawn(this.drawing, this.size, this.selected, this.picture));
  }

  showTools() {
    const person = this.drawing.people[this.selected];
    if (!person) {
      const hint = document.createElement("span");
      hint.className = "fpga-canvas-hint";
      hint.textContent = this.text("hint");
      this.tools.replaceChildren(hint, ...(this.drawing.people.length ? [this.button("clear", () => this.clear())] : []));
      return;
    }
    const name = document.createElement("input");
    name.value = person.name;
    name.placeholder = this.text("name");
    name.ariaLabel = this.text("name");
    name.setAttribute("list", `fpga-names-${this.node.id}`);
    name.addEventListener("input", () => this.change(withPerson(this.drawing, this.selected, { name: name.value })));
    name.addEventListener("change", () => this.remember());
    name.addEventListener("keydown", (event) => event.stopPropagation()); // Delete would delete the node
    const known = document.createElement("datalist");
    known.id = `fpga-names-${this.node.id}`;
    known.append(...namesOfPeople(this.node).map((value) => new Option(value, value)));
    const body = document.createElement("input");
    body.type = "checkbox";
    body.checked = person.pose.length > 0;
    const label = document.createElement("label");
    label.append(body, ` ${this.text("body")}`);
    body.addEventListener("change", () => {
      const pose = body.checked ? standingBody(person.head, this.size) : [];
      this.change(withPerson(this.drawing, this.selected, { pose }));
      this.remember();
    });
    this.tools.replaceChildren(name, known, label, this.button("remove", () => this.remove()));
  }

  /**
   * @param {string} key of its text
   * @param {() => void} onClick
   */
  button(key, onClick) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = this.text(key);
    button.addEventListener("click", onClick);
    return button;
  }

  clear() {
    this.select(-1);
    this.change(EMPTY);
    this.showTools();
    this.remember();
  }

  remove() {
    const people = this.drawing.people.filter((_, index) => index !== this.selected);
    this.selected = -1;
    this.change({ people });
    this.showTools();
    this.remember();
  }

  /** @param {number} index */
  select(index) {
    if (index === this.selected) return;
    this.selected = index;
    this.draw();
    this.showTools();
  }

  /**
   * @param {MouseEvent} event
   * @returns {Point}
   */
  place(event) {
    const matrix = /** @type {DOMMatrix} */ (this.surface.getScreenCTM());
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    return [round(x / this.size.width), round(y / this.size.height)];
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0) return;
    event.stopPropagation(); // the editor would move the node
    this.surface.focus();
    const from = this.place(event);
    const target = /** @type {SVGElement} */ (event.target);
    const drag = this.dragOf(target, from);
    const { pointerId } = event;
    this.surface.setPointerCapture(pointerId);
    const move = (/** @type {PointerEvent} */ moved) => this.change(drag(this.place(moved)));
    const end = (/** @type {PointerEvent} */ ended) => {
      this.surface.removeEventListener("pointermove", move);
      this.surface.removeEventListener("pointerup", end);
      this.surface.removeEventListener("pointercancel", end);
      if (target.dataset.part || ended.type === "pointerup") this.finish(target, from);
    };
    this.surface.addEventListener("pointermove", move);
    this.surface.addEventListener("pointerup", end);
    this.surface.addEventListener("pointercancel", end);
  }

  /**
   * What dragging a part of the drawing does.
   * @param {SVGElement} target
   * @param {Point} from
   * @returns {Drag}
   */
  dragOf(target, from) {
    const { part } = target.dataset;
    const start = this.drawing;
    if (!part) {
      this.select(-1);
      const index = start.people.length;
      const name = this.nextName();
      return (to) => {
        const head = boxBetween(from, to);
        const isDrawn = Math.min(head[2], head[3]) >= MIN_SIDE;
        if (!isDrawn) return start;
        this.selected = index;
        return { people: [...start.people, { name, head, pose: standingBody(head, this.size) }] };
      };
    }
    const index = Number(target.dataset.index);
    this.select(index);
    const person = start.people[index];
    if (part === "joint") {
      const joint = Number(target.dataset.joint);
      return (to) => withPerson(start, index, { pose: person.pose.map((point, n) => (n === joint ? to : point)) });
    }
    if (part === "head") {
      return (to) => {
        const head = movedBox(person.head, [to[0] - from[0], to[1] - from[1]]);
        return withPerson(start, index, withHead(person, head));
      };
    }
    const [x, y, width, height] = person.head;
    const corner = Number(target.dataset.corner);
    /** @type {Point} */
    const opposite = [corner % 2 ? x : x + width, corner > 1 ? y : y + height];
    return (to) => {
      const head = boxBetween(opposite, to);
      return Math.min(head[2], head[3]) < MIN_SIDE ? this.drawing : withPerson(start, index, withHead(person, head));
    };
  }

  /**
   * @param {SVGElement} target what was pressed
   * @param {Point} from
   */
  finish(target, from) {
    if (!target.dataset.part && this.selected < 0) this.addHeadAt(from);
    this.draw();
    this.showTools();
    this.remember();
  }

  /** A click on the empty canvas places a head of a usual size. @param {Point} center */
  addHeadAt(center) {
    const height = CLICK_HEIGHT;
    const width = round((height * this.size.height * 0.78) / this.size.width);
    const head = movedBox([0, 0, width, height], [center[0] - width / 2, center[1] - height / 2]);
    const person = { name: this.nextName(), head, pose: standingBody(head, this.size) };
    this.selected = this.drawing.people.length;
    this.change({ people: [...this.drawing.people, person] });
  }

  /** The first of the people who is not on the canvas yet. */
  nextName() {
    const taken = new Set(this.drawing.people.map(({ name }) => name));
    return namesOfPeople(this.node).find((name) => name && !taken.has(name)) ?? "";
  }

  /** @param {KeyboardEvent} event */
  pressKey(event) {
    if (!["Delete", "Backspace"].includes(event.key) || this.selected < 0) return;
    event.stopPropagation(); // the editor would delete the node
    this.remove();
  }
}

app.registerExtension({
  name: "fpga-portrait.canvas",
  getCustomWidgets: () => ({
    FPGA_DRAWING: (created, name) => {
      const node = /** @type {Node} */ (created);
      const canvas = new CanvasWidget(node);
      const widget = node.addDOMWidget(name, "fpga_canvas", canvas.element, {
        getValue: () => canvas.drawing,
        setValue: (/** @type {unknown} */ value) => canvas.set(value),
        getMinHeight: () => 300,
        hideOnZoom: false,
      });
      keepOn(node, canvas.element);
      const refresh = () => canvas.refresh();
      node.onConnectionsChange = chained(node.onConnectionsChange, refresh);
      for (const side of ["width", "height"]) {
        const sized = node.widgets?.find((other) => other.name === side);
        if (sized) sized.callback = chained(sized.callback, refresh);
      }
      api.addEventListener("execution_success", refresh);
      node.onRemoved = chained(node.onRemoved, () => api.removeEventListener("execution_success", refresh));
      return { widget, minWidth: 360, minHeight: 360 };
    },
  }),
});

/**
 * A function that calls another one, and then does something more.
 * @template {(...args: any[]) => any} F
 * @param {F | undefined | null} before
 * @param {() => void} after
 * @returns {F}
 */
function chained(before, after) {
  return /** @type {F} */ (function (/** @type {any[]} */ ...values) {
    // @ts-expect-error - `this` is what the editor calls it on
    const result = before?.apply(this, values);
    after();
    return result;
  });
}
