/**
 * The reports of earlier runs, by the keys of their nodes, in the browser: they survive a reload, and serve every
 * workflow. The server sends the report of a cached node only to the page that was open when the node ran.
 *
 * @typedef {{text: string, warnings: string[]}} Report
 */

const NAME = "fpga-portrait.reports";
const MOST = 300;

/** @returns {[string, Report][]} oldest first */
function saved() {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "[]");
  } catch (error) {
    if (error instanceof SyntaxError) return []; // written by something else
    throw error;
  }
}

const reports = new Map(saved());

/** @param {string} key */
export function findReport(key) {
  return reports.get(key);
}

/**
 * @param {string} key
 * @param {Report} report
 */
export function keepReport(key, report) {
  reports.delete(key);
  reports.set(key, report);
  for (const oldest of [...reports.keys()].slice(0, -MOST)) reports.delete(oldest);
  try {
    localStorage.setItem(NAME, JSON.stringify([...reports]));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // the browser's storage is full: reports last until a reload
  }
}
