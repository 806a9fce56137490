/**
 * Shows on each node what it found: when it ran, when its result came from the cache, and after a reload. What nodes
 * inside a subgraph found is also shown beneath the subgraph, and their warnings appear as a message of the editor.
 *
 * @typedef {import("../host.js").Node} Node
 * @typedef {import("./store.js").Report} Report
 * @typedef {import("./keys.js").Prompt} Prompt
 */

import { api, app, PREFIX } from "../host.js";
import { fill, partsOf, progressOf } from "./box.js";
import { learnFromHistory } from "./history.js";
import { keysOf } from "./keys.js";
import { showOutside } from "./outside.js";
import { findReport, keepReport } from "./store.js";

const TOAST_MS = 15000;

/** The warnings that nodes gave while they ran, in the current run. @type {Map<string, string[]>} */
const given = new Map();

/** The id of the prompt that runs. */
let running = "";

/** Prompts by their ids, as the keys of their nodes. @type {Map<string, Map<string, string>>} */
const queued = new Map();

/**
 * The nodes of an id of a prompt: the subgraphs around it, from the outermost, and the node itself.
 * @param {string} executionId such as 12 or 7:12
 * @returns {Node[]}
 */
function pathTo(executionId) {
  /** @type {Node[]} */
  const path = [];
  for (const id of executionId.split(":")) {
    const last = path.at(-1);
    const graph = last ? /** @type {any} */ (last).subgraph : app.rootGraph;
    const node = graph?.getNodeById(Number(id));
    if (!node) return [];
    path.push(node);
  }
  return path;
}

/**
 * Shows on a node, and beneath every subgraph around it, what it says.
 * @param {string} executionId
 * @param {() => HTMLElement[]} make makes the elements anew for each place
 */
function say(executionId, make) {
  const path = pathTo(executionId);
  const node = path.pop();
  if (!node) return;
  fill(node, make());
  for (const around of path) showOutside(around, executionId, node.title, make());
}

/**
 * @param {string} executionId
 * @param {Report} report
 */
function show(executionId, report) {
  say(executionId, () => partsOf(report));
}

/**
 * Shows the warnings of a node that is not in sight as messages.
 * @param {string} executionId
 * @param {string[]} warnings
 */
function announce(executionId, warnings) {
  const path = pathTo(executionId);
  if (path.at(-1)?.graph === app.canvas.graph) return;
  for (const detail of warnings) {
    app.extensionManager.toast.add({ severity: "warn", summary: path[0]?.title, detail, life: TOAST_MS });
  }
}

/** Shows what is known of every node of the graph, from this browser's runs and from those of others. */
async function showKnown() {
  await learnFromHistory();
  const { output } = await app.graphToPrompt();
  for (const [id, key] of keysOf(/** @type {Prompt} */ (output))) {
    const report = findReport(key);
    if (report) show(id, report);
  }
}

/** Remembers the keys of the prompts that this page queues. */
function followQueue() {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (number, data, ...others) {
    const keys = keysOf(/** @type {Prompt} */ (data.output));
    queued.set("", keys); // for what arrives before the reply
    const reply = await queuePrompt.call(this, number, data, ...others);
    if (reply.prompt_id) queued.set(reply.prompt_id, keys);
    return reply;
  };
}

/**
 * Keeps a report of the prompt that runs now.
 * @param {string} executionId
 * @param {Report} report
 */
function keep(executionId, report) {
  const key = keysOfRun(running).get(executionId);
  if (key) keepReport(key, report);
}

/** @param {string} promptId */
function keysOfRun(promptId) {
  return queued.get(promptId) ?? queued.get("") ?? new Map();
}

app.registerExtension({
  name: "fpga-portrait.reports",
  setup() {
    followQueue();
    api.addEventListener("execution_start", ({ detail }) => {
      running = detail.prompt_id;
      for (const id of given.keys()) show(id, { text: "", warnings: [] });
      given.clear();
    });
    // @ts-expect-error - an event of the pack's own
    api.addEventListener("fpga.warning", (/** @type {CustomEvent<{node: string, text: string}>} */ { detail }) => {
      const id = String(detail.node);
      given.set(id, [...(given.get(id) ?? []), detail.text]);
      keep(id, { text: "", warnings: given.get(id) ?? [] });
      show(id, { text: "", warnings: given.get(id) ?? [] });
      announce(id, [detail.text]);
    });
    api.addEventListener("executed", ({ detail }) => {
      const { text, warnings } = /** @type {{text?: string[], warnings?: string[]}} */ (detail.output ?? {});
      const id = String(detail.node);
      if (!pathTo(id).at(-1)?.type.startsWith(PREFIX)) return;
      if (!text) return show(id, { text: "", warnings: given.get(id) ?? [] }); // what it was doing is done
      const report = { text: text.join("\n"), warnings: [...(given.get(id) ?? []), ...(warnings ?? [])] };
      keep(id, report);
      show(id, report);
      announce(id, warnings ?? []);
    });
    api.addEventListener("execution_cached", async ({ detail }) => {
      const nodes = detail.nodes.map(String);
      const keyOf = (/** @type {string} */ id) => keysOfRun(detail.prompt_id).get(id) ?? "";
      if (nodes.some((id) => pathTo(id).at(-1)?.type.startsWith(PREFIX) && !findReport(keyOf(id)))) await learnFromHistory();
      for (const id of nodes) {
        const report = findReport(keyOf(id));
        if (!report) continue;
        show(id, report);
        announce(id, report.warnings);
      }
    });
    // @ts-expect-error - an event of the pack's own
    api.addEventListener("fpga.progress", (/** @type {CustomEvent<{node: string, text: string}>} */ { detail }) => {
      const id = String(detail.node);
      given.set(id, given.get(id) ?? []); // cleared by the next run, if this one fails
      say(id, () => progressOf(detail.text));
    });
  },
  afterConfigureGraph() {
    void showKnown();
  },
});
