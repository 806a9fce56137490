/**
 * The reports of runs that another browser, or a program, has queued: the server's own history has them.
 *
 * @typedef {import("./keys.js").Prompt} Prompt
 * @typedef {{prompt: [number, string, Prompt, ...unknown[]], outputs: Record<string, Output>}} Run
 * @typedef {{text?: string[], warnings?: string[]}} Output
 */

import { api, PREFIX } from "../host.js";
import { keysOf } from "./keys.js";
import { findReport, keepReport } from "./store.js";

/** Runs to look at; the newest count. */
const MOST_RUNS = 64;

/** Keeps the reports of the server's last runs that this browser has not seen. */
export async function learnFromHistory() {
  const reply = await api.fetchApi(`/history?max_items=${MOST_RUNS}`);
  if (!reply.ok) return; // reports of this browser's own runs are known without it
  for (const { prompt, outputs } of /** @type {Run[]} */ (Object.values(await reply.json()))) {
    const [, , nodes] = prompt;
    const keys = keysOf(nodes);
    for (const [id, { text, warnings }] of Object.entries(outputs)) {
      const key = keys.get(id);
      if (!key || !text || !nodes[id]?.class_type.startsWith(PREFIX) || findReport(key)) continue;
      keepReport(key, { text: text.join("\n"), warnings: warnings ?? [] });
    }
  }
}
