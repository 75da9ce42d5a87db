// Tiles of pictures that a TileJSON names, as a layer to be draped.

import { Credit, ImageryLayer, Rectangle, Resource, UrlTemplateImageryProvider } from "cesium";
import { RequestError, getJson } from "./catalogue";
import type { Failed } from "./view";

interface RasterTileJson {
  tiles: string[];
  minzoom?: number;
  maxzoom?: number;
  attribution?: string;
}

/**
 * The level below which Cesium shall not ask: seen from afar, an image is a speck whose tiles are
 * dear to make. But Cesium then loads all of this level at once, so it must be few tiles.
 */
function lowestLevel(rectangle: Rectangle, minzoom: number): number {
  const across = Math.max(rectangle.width, 2 * rectangle.height) / (2 * Math.PI);
  return Math.max(0, Math.min(minzoom, Math.floor(Math.log2(3 / across))));
}

/** The layer of the TileJSON at `url`; `minzoom` stands for the one that it states. */
export async function rasterLayer(
  url: string,
  bounds: readonly [number, number, number, number],
  failed: Failed,
  minzoom?: number,
): Promise<ImageryLayer> {
  const json = await getJson<RasterTileJson>(url);
  const template = json.tiles[0];
  if (template === undefined) throw new RequestError(`${url}: TileJSON names no tiles`);
  const tiles = new URL(template, url);
  const side = Number(tiles.searchParams.get("tilesize") ?? 256);
  const rectangle = Rectangle.fromDegrees(...bounds);
  const provider = new UrlTemplateImageryProvider({
    url: new Resource({ url: tiles.href.replaceAll("%7B", "{").replaceAll("%7D", "}") }),
    rectangle,
    tileWidth: side,
    tileHeight: side,
    minimumLevel: lowestLevel(rectangle, minzoom ?? json.minzoom ?? 0),
    maximumLevel: json.maxzoom ?? 22,
    enablePickFeatures: false,
    credit: json.attribution ? new Credit(json.attribution) : undefined,
  });
  provider.errorEvent.addEventListener(failed);
  return new ImageryLayer(provider);
}
