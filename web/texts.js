/**
 * The extension's own texts, in the editor's language, from `locales/<language>/main.json` under `fpgaPortrait`.
 */

import { api, app } from "./host.js";

/** @typedef {{[key: string]: string | Texts}} Texts */

/** @typedef {Record<string, {fpgaPortrait?: Texts}>} Languages */

/** @type {Promise<Languages> | undefined} */
let loaded;

/**
 * Returns a text of the language that the editor is set to, or else of English.
 * @param {string} group
 * @returns {Promise<(key: string) => string>}
 */
export async function textsOf(group) {
  loaded ??= /** @type {Promise<Languages>} */ (api.getCustomNodesI18n());
  const languages = await loaded;
  const chosen = languages[String(app.extensionManager.setting.get("Comfy.Locale"))]?.fpgaPortrait?.[group];
  const english = languages.en?.fpgaPortrait?.[group];
  return (key) => {
    const [translated, fallback] = [chosen, english].map((texts) => (typeof texts === "object" ? texts[key] : undefined));
    return String(translated ?? fallback ?? key);
  };
}
