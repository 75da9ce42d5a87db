// The map that drawings are put on: their sources, and their layers in the order that belongs.

import type {
  GetResourceResponse,
  LayerSpecification,
  Map as LibreMap,
  SourceSpecification,
} from "maplibre-gl";
import { RequestError } from "./catalogue";
import type { Library } from "./map_library";
import type { Holds } from "./pmtiles_index";

/** Groups of layers from the ground up. */
export const levels = { imagery: 0, relief: 1, fill: 2, line: 3, circle: 4, symbol: 5, mark: 6 } as const;

/** Where a layer belongs: group, order within it, and a number of features (more lie below). */
export type Rank = readonly [number, number, number];

/** Tiles that are asked for only where they are held: a 404 would stand in the console. */
interface Tiles {
  template: string;
  holds: Holds;
}

const scheme = "cim-tiles";
const tilesOf = new Map<string, Tiles>();
/** Beyond the last zoom the map asks for one tile as often as it cuts pieces from it. */
const kept = 64;
const fetched = new Map<string, Promise<ArrayBuffer>>();

async function fetchTile(url: string): Promise<ArrayBuffer> {
  const [asset = "", z = "", x = "", y = ""] = url.slice(scheme.length + 3).split("/");
  const { template, holds } = tilesOf.get(decodeURIComponent(asset))!;
  if (!(await holds(Number(z), Number(x), Number(y)))) return new ArrayBuffer(0);
  const address = template.replace("{z}", z).replace("{x}", x).replace("{y}", y);
  const response = await fetch(address);
  if (response.status === 404) return new ArrayBuffer(0);
  if (!response.ok) throw new RequestError(`${address}: HTTP ${response.status}`);
  return response.arrayBuffer();
}

async function tile({ url }: { url: string }): Promise<GetResourceResponse<ArrayBuffer>> {
  let coming = fetched.get(url);
  if (coming === undefined) {
    coming = fetchTile(url);
    fetched.set(url, coming);
    coming.catch(() => fetched.delete(url));
    if (fetched.size > kept) fetched.delete(fetched.keys().next().value!);
  }
  // A copy: what is handed over goes to the worker for good.
  return { data: (await coming).slice(0) };
}

function before(a: Rank, b: Rank): boolean {
  const first = a.findIndex((value, place) => value !== b[place]);
  return first >= 0 && (first === 2 ? a[2] > b[2] : a[first]! < b[first]!);
}

export class MapStage {
  private readonly placed: [string, Rank][] = [];

  constructor(
    readonly map: LibreMap,
    library: Library,
  ) {
    library.addProtocol(scheme, tile);
  }

  /** The address by which the map asks for tiles of `asset`. */
  tilesIn(asset: string, template: string, holds: Holds): string {
    tilesOf.set(asset, { template, holds });
    return `${scheme}://${encodeURIComponent(asset)}/{z}/{x}/{y}`;
  }

  /** Write with the fonts of a style, which are the server's and so the same in all of them. */
  writeWith(glyphs: string | undefined): void {
    if (glyphs !== undefined && this.map.getGlyphs() !== glyphs) this.map.setGlyphs(glyphs);
  }

  addSource(id: string, source: SourceSpecification): void {
    this.map.addSource(id, source);
  }

  /** Put a layer above all of the same or a lower rank. */
  addLayer(layer: LayerSpecification, rank: Rank): void {
    const above = this.placed.findIndex(([, other]) => before(rank, other));
    const at = above < 0 ? this.placed.length : above;
    this.map.addLayer(layer, this.placed[at]?.[0]);
    this.placed.splice(at, 0, [layer.id, rank]);
  }

  removeSource(id: string): void {
    for (const layer of this.map.getStyle().layers) {
      if (!("source" in layer) || layer.source !== id) continue;
      this.map.removeLayer(layer.id);
      const at = this.placed.findIndex(([placed]) => placed === layer.id);
      if (at >= 0) this.placed.splice(at, 1);
    }
    this.map.removeSource(id);
  }
}
