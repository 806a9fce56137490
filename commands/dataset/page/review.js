/**
 * The page of `fpga-portrait dataset review`: many pictures at a time, decided by keyboard.
 *
 * @typedef {"keep" | "drop" | "undecided"} Choice
 * @typedef {{sha256: string, file: string, caption: string, decision: Choice}} Picture
 * @typedef {{index: number, before: Choice}[]} Step what one key changed
 */

const key = new URLSearchParams(location.search).get("key") ?? "";
const main = /** @type {HTMLElement} */ (document.getElementById("pictures"));
const progress = /** @type {HTMLElement} */ (document.getElementById("progress"));
const caption = /** @type {HTMLElement} */ (document.getElementById("caption"));

/** @type {Picture[]} */
let pictures = [];

/** @type {Step[]} */
const done = [];

/** Decisions that are not sent yet, in their order. @type {{sha256: string, decision: Choice}[]} */
let waiting = [];

let isSending = false;

/** @param {number} index */
function figure(index) {
  return /** @type {HTMLElement} */ (main.children[index]);
}

/** The picture that has the keyboard; -1 before the first key. */
function current() {
  return [...main.children].indexOf(/** @type {Element} */ (document.activeElement));
}

/** @param {number} index */
function go(index) {
  const target = figure(Math.min(Math.max(index, 0), pictures.length - 1));
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "nearest" });
}

/** How many pictures stand side by side. */
function columns() {
  return getComputedStyle(main).gridTemplateColumns.split(" ").length;
}

/**
 * @param {number} index
 * @param {Choice} choice
 */
function set(index, choice) {
  const picture = pictures[index];
  if (!picture) return;
  picture.decision = choice;
  figure(index).className = choice;
  waiting.push({ sha256: picture.sha256, decision: choice });
  count();
  void send();
}

/** Sends what is waiting, one request at a time, so that the file has the decisions in their order. */
async function send() {
  if (isSending) return;
  isSending = true;
  while (waiting.length) {
    await undefined; // what one key decided travels together
    const decisions = waiting;
    waiting = [];
    try {
      const reply = await fetch(`decide?key=${key}`, { method: "POST", body: JSON.stringify(decisions) });
      if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
    } catch (error) {
      progress.textContent = `Not saved (${error}). Start the command again and reload this page.`;
      return; // nothing more is sent, so that nothing is saved out of order
    }
  }
  isSending = false;
}

/**
 * @param {number[]} indices
 * @param {Choice} choice
 */
function decide(indices, choice) {
  done.push(indices.map((index) => ({ index, before: pictures[index].decision })));
  for (const index of indices) set(index, choice);
}

function undo() {
  const step = done.pop();
  if (!step) return;
  for (const { index, before } of step) set(index, before);
  go(step[0].index);
}

/** The pictures that are in sight as a whole and not decided. */
function undecidedInSight() {
  const top = document.querySelector("header")?.getBoundingClientRect().bottom ?? 0;
  return pictures.flatMap(({ decision }, index) => {
    const box = figure(index).getBoundingClientRect();
    return decision === "undecided" && box.top >= top - 1 && box.bottom <= innerHeight + 1 ? [index] : [];
  });
}

function keepPage() {
  const seen = undecidedInSight();
  if (seen.length) decide(seen, "keep");
  next();
}

function next() {
  const index = pictures.findIndex(({ decision }) => decision === "undecided");
  if (index < 0) return;
  figure(index).scrollIntoView({ block: "start" });
  scrollBy(0, -(document.querySelector("header")?.clientHeight ?? 0) - 8);
  figure(index).focus({ preventScroll: true });
}

function count() {
  const of = (/** @type {Choice} */ choice) => pictures.filter(({ decision }) => decision === choice).length;
  const [kept, dropped] = [of("keep"), of("drop")];
  progress.textContent = `${kept + dropped} of ${pictures.length} decided: ${kept} kept, ${dropped} dropped`;
}

/** @type {Record<string, (index: number) => void>} */
const KEYS = {
  d: (index) => (decide([index], "drop"), go(index + 1)),
  k: (index) => (decide([index], "keep"), go(index + 1)),
  u: () => undo(),
  p: () => keepPage(),
  n: () => next(),
  ArrowRight: (index) => go(index + 1),
  ArrowLeft: (index) => go(index - 1),
  ArrowDown: (index) => go(index + columns()),
  ArrowUp: (index) => go(index - columns()),
};

/** @param {Picture} picture @param {number} index */
function shown({ decision, file, caption }, index) {
  const frame = document.createElement("figure");
  frame.tabIndex = 0;
  frame.className = decision;
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = caption || file;
  image.src = `picture/${index}?key=${key}`;
  frame.append(image);
  return frame;
}

async function start() {
  const reply = await fetch(`pictures?key=${key}`);
  if (!reply.ok) {
    progress.textContent = "Open the address that the command printed: this one has another key.";
    return;
  }
  pictures = await reply.json();
  main.append(...pictures.map(shown));
  main.addEventListener("focusin", () => {
    const { file, caption: words } = pictures[current()];
    caption.textContent = `${file}: ${words}`;
  });
  document.addEventListener("keydown", (event) => {
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(Math.max(current(), 0));
  });
  count();
  next();
  if (current() < 0) go(0);
}

void start();
