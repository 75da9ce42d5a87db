// Vector tiles of one asset: fetched once, kept decoded, never asked for where there are none.

import { VectorTile, type VectorTileFeature } from "@mapbox/vector-tile";
import { PbfReader } from "pbf";
import { RequestError, getJson, type Asset } from "./catalogue";
import { tilesHeld, type Holds } from "./pmtiles_index";

interface TileJson {
  tiles: string[];
  bounds?: [number, number, number, number];
  minzoom?: number;
  maxzoom?: number;
  attribution?: string;
  vector_layers?: { id: string; fields?: Record<string, string> }[];
}

/** A decoded tile and the square of it that an over-zoomed tile shows. */
export interface TilePart {
  tile: VectorTile;
  /** Zoom, column and row of the fetched tile. */
  z: number;
  x: number;
  y: number;
  /** Side of the shown square as a fraction of the fetched tile, and its corner. */
  share: number;
  left: number;
  top: number;
}

const kept = 256;
/** Most tiles read to highlight one feature. */
const mostPieces = 48;

export class VectorSource {
  private readonly tiles = new Map<string, Promise<VectorTile | undefined>>();

  private constructor(
    private readonly template: string,
    private readonly holds: Holds,
    readonly bounds: [number, number, number, number],
    readonly minzoom: number,
    readonly maxzoom: number,
    readonly layers: string[],
    readonly attribution: string,
  ) {}

  /** The source described by the TileJSON at `url`. */
  static async open(asset: Asset): Promise<VectorSource> {
    const { service: url, bounds } = asset;
    const json = await getJson<TileJson>(url);
    const template = json.tiles[0];
    if (template === undefined) throw new RequestError(`${url}: TileJSON names no tiles`);
    return new VectorSource(
      new URL(template, url).href.replaceAll("%7B", "{").replaceAll("%7D", "}"),
      tilesHeld(asset),
      json.bounds ?? bounds,
      json.minzoom ?? 0,
      json.maxzoom ?? 14,
      (json.vector_layers ?? []).map((layer) => layer.id),
      json.attribution ?? "",
    );
  }

  /** The tile that shows `z`/`x`/`y`: itself, or its ancestor at the deepest zoom there is. */
  async part(z: number, x: number, y: number): Promise<TilePart | undefined> {
    if (z < this.minzoom) return undefined;
    const up = Math.max(0, z - this.maxzoom);
    const parent = { z: z - up, x: x >> up, y: y >> up };
    const tile = await this.tile(parent.z, parent.x, parent.y);
    if (tile === undefined) return undefined;
    const share = 2 ** -up;
    return { tile, ...parent, share, left: x * share - parent.x, top: y * share - parent.y };
  }

  /** The pieces of feature `id` of `layer` in the tile of `part` and in those around it. */
  async pieces(part: TilePart, layer: string, id: number): Promise<[TilePart, VectorTileFeature][]> {
    const found: [TilePart, VectorTileFeature][] = [];
    const queue: [number, number][] = [[part.x, part.y]];
    const seen = new Set<string>();
    while (queue.length > 0 && seen.size < mostPieces) {
      const [x, y] = queue.shift()!;
      if (seen.has(`${x}/${y}`) || x < 0 || y < 0 || x >= 2 ** part.z || y >= 2 ** part.z) continue;
      seen.add(`${x}/${y}`);
      const here = await this.part(part.z, x, y);
      const features = here?.tile.layers[layer];
      if (here === undefined || features === undefined) continue;
      for (let index = 0; index < features.length; index += 1) {
        const feature = features.feature(index);
        if (feature.id !== id) continue;
        found.push([here, feature]);
        queue.push([x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]);
      }
    }
    return found;
  }

  private tile(z: number, x: number, y: number): Promise<VectorTile | undefined> {
    const key = `${z}/${x}/${y}`;
    const known = this.tiles.get(key);
    if (known !== undefined) {
      this.tiles.delete(key);
      this.tiles.set(key, known);
      return known;
    }
    const fresh = this.fetchTile(z, x, y);
    this.tiles.set(key, fresh);
    fresh.catch(() => this.tiles.delete(key));
    if (this.tiles.size > kept) this.tiles.delete(this.tiles.keys().next().value!);
    return fresh;
  }

  private async fetchTile(z: number, x: number, y: number): Promise<VectorTile | undefined> {
    if (!(await this.holds(z, x, y))) return undefined;
    const url = this.template
      .replace("{z}", String(z))
      .replace("{x}", String(x))
      .replace("{y}", String(y));
    const response = await fetch(url);
    if (response.status === 404) return undefined;
    if (!response.ok) throw new RequestError(`${url}: HTTP ${response.status}`);
    return new VectorTile(new PbfReader(await response.arrayBuffer()));
  }
}
