/**
 * ComfyUI's editor, typed. The other files import it from here, so that the one import without types is in one place.
 *
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} ComfyApp
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} ComfyApi
 * @typedef {ComfyApp["canvas"]} Canvas
 * @typedef {NonNullable<ReturnType<ComfyApp["graph"]["getNodeById"]>>} GraphNode
 * @typedef {GraphNode & AddedToNodes} Node
 * @typedef {Parameters<GraphNode["configure"]>[0]} SavedNode
 * @typedef {NonNullable<Node["widgets"]>[number]} Widget
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyNodeDef} NodeDefinition
 */

/**
 * What the editor adds to the nodes of its graph library, which the published types leave out.
 *
 * @typedef {object} AddedToNodes
 * @property {HTMLImageElement[]} [imgs] the pictures that the node shows
 * @property {{autogrow?: Record<string, {min: number}>}} [comfyDynamic] the growing inputs, by name
 * @property {(name: string, type: string, element: HTMLElement, options: DomWidgetOptions) => Widget} addDOMWidget
 *
 * @typedef {object} DomWidgetOptions
 * @property {() => any} [getValue]
 * @property {(value: any) => void} [setValue]
 * @property {() => number} [getMinHeight] pixels
 * @property {boolean} [hideOnZoom] whether a grey box is shown when the graph is seen from far away
 * @property {boolean} [serialize] whether prompts contain its value
 */

// @ts-expect-error - the editor serves this file; the pack does not have it
import { app as untypedApp } from "../../scripts/app.js";
// @ts-expect-error - as above
import { api as untypedApi } from "../../scripts/api.js";

/** @type {ComfyApp} */
export const app = untypedApp;

/** @type {ComfyApi} */
export const api = untypedApi;

/** The pack's nodes have ids that start with this. */
export const PREFIX = "FPGA_";
