// MapLibre GL JS, loaded from beside the page when a map is first wanted; its worker lies beside it.

import type * as MapLibre from "maplibre-gl";
import { element } from "./element";
import { serverRoot } from "./roots";

export type Library = typeof MapLibre;

let loaded: Promise<Library> | undefined;

async function load(): Promise<Library> {
  const folder = new URL("static/maplibre/", serverRoot);
  const style = element("link", {
    rel: "stylesheet",
    href: new URL("maplibre-gl.css", folder).href,
  });
  const styled = new Promise((done, failed) => {
    style.addEventListener("load", done);
    style.addEventListener("error", failed);
  });
  document.head.prepend(style);
  const url = new URL("maplibre-gl.mjs", folder).href;
  const [library] = await Promise.all([import(/* @vite-ignore */ url) as Promise<Library>, styled]);
  return library;
}

/** The library, once for all maps. */
export function mapLibrary(): Promise<Library> {
  loaded ??= load().catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

/**
 * Whether this machine can write Chinese: without a font for it all characters are one box.
 * Sharper than the server's, and nothing to fetch, where it can.
 */
export function writesChinese(): boolean {
  const picture = (character: string): string => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 32;
    const context = canvas.getContext("2d")!;
    context.font = "24px sans-serif";
    context.fillText(character, 2, 26);
    return canvas.toDataURL();
  };
  return picture("国") !== picture("随");
}
