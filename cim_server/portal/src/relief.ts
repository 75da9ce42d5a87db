// Where the pictures of a terrain are.

import type { Asset } from "./catalogue";
import { serverRoot } from "./roots";

/** Address of the TileJSON of a terrain's `product`. */
export function reliefJson(asset: Asset, product: "hillshade" | "terrainrgb"): string {
  const path = `terrain/${encodeURIComponent(asset.id)}/${product}/WebMercatorQuad/tilejson.json`;
  return new URL(path, serverRoot).href;
}
