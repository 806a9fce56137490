/**
 * Keys of nodes: two nodes have the same key if they and everything before them are set alike, in whatever workflow.
 * ComfyUI's cache shares results by the same rule, and reports are part of the results.
 *
 * @typedef {Record<string, {class_type: string, inputs: Record<string, unknown>}>} Prompt
 */

/**
 * @param {Prompt} prompt
 * @returns {Map<string, string>} id of each node -> its key
 */
export function keysOf(prompt) {
  /** @type {Map<string, string>} */
  const keys = new Map();
  const keyOf = (/** @type {string} */ id) => {
    const known = keys.get(id);
    if (known !== undefined) return known;
    keys.set(id, ""); // a graph that goes in circles is refused by the server
    const node = prompt[id];
    const inputs = Object.entries(node?.inputs ?? {}).map(([name, value]) => [name, isLink(value) ? linkKey(value) : value]);
    const key = hash(JSON.stringify([node?.class_type, inputs.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1))]));
    keys.set(id, key);
    return key;
  };
  const linkKey = (/** @type {[string | number, number]} */ [source, slot]) => [keyOf(String(source)), slot];
  Object.keys(prompt).forEach(keyOf);
  return keys;
}

/**
 * @param {unknown} value of an input
 * @returns {value is [string | number, number]} whether it is a wire
 */
function isLink(value) {
  return Array.isArray(value) && value.length === 2 && typeof value[1] === "number";
}

/**
 * A hash of 106 bits, of two halves with different starts (cyrb53).
 * @param {string} text
 */
function hash(text) {
  return [0x9e3779b9, 0x85ebca6b].map((seed) => {
    let [a, b] = [0xdeadbeef ^ seed, 0x41c6ce57 ^ seed];
    for (let i = 0; i < text.length; i++) {
      a = Math.imul(a ^ text.charCodeAt(i), 2654435761);
      b = Math.imul(b ^ text.charCodeAt(i), 1597334677);
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return (4294967296 * (2097151 & b) + (a >>> 0)).toString(36);
  }).join("-");
}
