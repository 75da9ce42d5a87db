// The catalogue as the portal sees it: STAC collections and items, read once per visit.

import { serverRoot } from "./roots";

export const kinds = ["terrain", "imagery", "buildings", "divisions", "vector", "pointcloud"] as const;
export type Kind = (typeof kinds)[number];

interface StacLink {
  rel: string;
  href: string;
  type?: string;
}

interface StacItem {
  id: string;
  collection?: string;
  bbox: number[];
  properties: Record<string, unknown>;
  assets: Record<string, { href: string }>;
  links: StacLink[];
}

interface StacPage {
  features: StacItem[];
  links?: StacLink[];
}

/** One field of an asset's features: `name` is the source's own name, often Chinese. */
export interface Field {
  id: string;
  name: string;
  /** What the source says of it; empty without. */
  description: string;
}

/** One catalogued thing that the portal can draw. */
export interface Asset {
  id: string;
  title: string;
  kind: Kind;
  collection: string;
  /** West, south, east, north in degrees. */
  bounds: [number, number, number, number];
  /** Lowest and highest ellipsoidal height in metres. */
  heights: [number, number];
  version: string;
  properties: Record<string, unknown>;
  info: Record<string, unknown>;
  fields: Field[];
  /** Address of tileset.json, layer.json or tilejson.json. */
  service: string;
  stac: string;
  links: Record<string, string>;
}

/** A collection with the assets in it. */
export interface Group {
  id: string;
  /** Chinese and English title. */
  titles: [string, string];
  assets: Asset[];
}

interface StacCollection {
  id: string;
  title?: string;
  "cim:category"?: string;
  "cim:title_en"?: string;
}

/** A request that did not bring what was asked for; the message names the address. */
export class RequestError extends Error {}

/** The JSON at `url`, which may be relative to the server's root. */
export async function getJson<T>(url: string): Promise<T> {
  const address = new URL(url, serverRoot).href;
  let response: Response;
  try {
    response = await fetch(address, { headers: { Accept: "application/json" } });
  } catch (cause) {
    throw new RequestError(`${address}: ${String(cause)}`, { cause });
  }
  if (!response.ok) throw new RequestError(`${address}: HTTP ${response.status}`);
  return (await response.json()) as T;
}

const serviceOf: Record<Kind, string> = {
  buildings: "tileset",
  terrain: "terrain",
  imagery: "tilejson",
  vector: "tilejson",
  divisions: "tilejson",
  pointcloud: "tileset",
};

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function fieldsOf(info: Record<string, unknown>): Field[] {
  const fields = info["fields"];
  const entries: [string, unknown][] = Array.isArray(fields)
    ? fields.map((field) => [String(record(field)["id"] ?? record(field)["name"]), field])
    : Object.entries(record(fields));
  return entries.map(([id, field]) => ({
    id,
    name: text(record(field)["name"]) ?? id,
    description: text(record(field)["description"]) ?? "",
  }));
}

function assetOf(item: StacItem): Asset | undefined {
  const kind = kinds.find((known) => known === item.properties["cim:kind"]);
  if (kind === undefined) return undefined;
  const service = item.assets[serviceOf[kind]]?.href;
  if (service === undefined) return undefined;
  const flat = item.bbox.length === 4;
  const at = (index: number): number => item.bbox[index] ?? 0;
  const links: Record<string, string> = {};
  for (const link of item.links) links[link.rel] ??= link.href;
  const info = record(item.properties["cim:info"]);
  return {
    id: item.id,
    title: text(item.properties["title"]) ?? item.id,
    kind,
    collection: item.collection ?? "",
    bounds: flat ? [at(0), at(1), at(2), at(3)] : [at(0), at(1), at(3), at(4)],
    heights: flat ? [0, 0] : [at(2), at(5)],
    version: String(item.properties["version"] ?? ""),
    properties: item.properties,
    info,
    fields: fieldsOf(info),
    service: new URL(service, serverRoot).href,
    stac: links["self"] ?? new URL(`stac/collections/${item.collection}/items/${item.id}`, serverRoot).href,
    links,
  };
}

/** Everything in the catalogue that the portal can draw, grouped by collection. */
export async function loadCatalogue(): Promise<Group[]> {
  const [listing, first] = await Promise.all([
    getJson<{ collections: StacCollection[] }>("stac/collections"),
    getJson<StacPage>("stac/search?limit=1000"),
  ]);
  const items: StacItem[] = [];
  let page = first;
  for (;;) {
    items.push(...page.features);
    const next = page.links?.find((link) => link.rel === "next");
    if (next === undefined || page.features.length === 0) break;
    page = await getJson<StacPage>(next.href);
  }
  const assets = items.map(assetOf).filter((asset): asset is Asset => asset !== undefined);
  const known = new Map(listing.collections.map((entry) => [entry.id, entry]));
  const ids = [...new Set([...known.keys(), ...assets.map((asset) => asset.collection)])];
  return ids
    .map((id): Group => {
      const title = known.get(id)?.title ?? id;
      const collection = known.get(id);
      return {
        id,
        titles: [collection?.["cim:category"] ?? title, collection?.["cim:title_en"] ?? title],
        assets: assets.filter((asset) => asset.collection === id),
      };
    })
    .filter((group) => group.assets.length > 0);
}

/** The address of `asset`'s service that never changes; rasters take the version as a query. */
export function versioned(asset: Asset): string {
  if (asset.kind !== "imagery") return asset.service.replace("/current/", `/${asset.version}/`);
  const url = new URL(asset.service);
  url.searchParams.set("version", asset.version);
  return url.href;
}
