/**
 * ComfyUI's editor, typed. The other files import it from here, so that the one import without types is in one place.
 *
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} ComfyApp
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} ComfyApi
 * @typedef {ComfyApp["canvas"]} Canvas
 * @typedef {NonNullable<ReturnType<ComfyApp["graph"]["getNodeById"]>>} Node
 * @typedef {NonNullable<Node["widgets"]>[number]} Widget
 * @typedef {import("@comfyorg/comfyui-frontend-types").ComfyNodeDef} NodeDefinition
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
