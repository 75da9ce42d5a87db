// What a click found, and what a feature that it hit is.

import { RequestError, getJson, type Asset } from "./catalogue";
import { t } from "./i18n";
import { nameOf } from "./names";
import { serverRoot } from "./roots";

/** One attribute; `name` is the source's own name of the property. */
export interface Attribute {
  id: string;
  name: string;
  value: unknown;
}

/** What a click found. */
export interface Picked {
  asset: Asset | undefined;
  title: string;
  attributes: Attribute[];
  /** Why they are not all that is known. */
  trouble?: string;
}

/** A feature as GeoJSON. */
export interface Feature {
  type: "Feature";
  id: number;
  geometry: { type: string } | null;
  properties: Record<string, unknown>;
}

/** What of a vector asset was hit: a feature as its tile has it, and where. */
export interface Hit {
  asset: Asset;
  id: number | undefined;
  properties: Record<string, unknown>;
  /** Degrees. */
  longitude: number;
  latitude: number;
  /** Metres that the click may have missed it by. */
  reach_m: number;
}

const farthest_m = 10_000;

/** The whole feature of a hit; tiles may have fewer attributes and simpler shapes. */
export async function featureOf(hit: Hit): Promise<Feature | undefined> {
  const folder = new URL(`features/${encodeURIComponent(hit.asset.id)}/`, serverRoot);
  const radius = Math.min(hit.reach_m, farthest_m).toFixed(3);
  const place = `lon=${hit.longitude.toFixed(9)}&lat=${hit.latitude.toFixed(9)}`;
  const { features } = await getJson<{ features: Feature[] }>(
    new URL(`at?${place}&radius=${radius}&limit=20`, folder).href,
  );
  if (hit.id === undefined) return features[0];
  // Simplified borders run beside the true ones, so what was hit may lie elsewhere.
  return (
    features.find(({ id }) => id === hit.id) ??
    (await getJson<Feature>(new URL(`items/${hit.id}`, folder).href))
  );
}

/** What to tell of a hit, and its whole feature. */
export async function pickedOf(hit: Hit): Promise<[Picked, Feature | undefined]> {
  const { asset } = hit;
  let feature: Feature | undefined;
  let trouble: string | undefined;
  try {
    feature = await featureOf(hit);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    trouble = error.message;
  }
  const names = new Map(asset.fields.map((field) => [field.id, field.name]));
  const attributes = Object.entries(feature?.properties ?? hit.properties).map(([id, value]) => ({
    id,
    name: names.get(id) ?? id,
    value,
  }));
  return [{ asset, attributes, title: titleOf(attributes, asset), trouble }, feature];
}

/** The name of what has these attributes. */
export function titleOf(attributes: Attribute[], asset: Asset | undefined): string {
  // From afar a block stands for many buildings; each shows itself when the camera comes nearer.
  const block = attributes.find(({ id }) => id === "cim_features");
  if (block !== undefined) return t("block").replace("{n}", String(block.value));
  const byId = nameOf(Object.fromEntries(attributes.map(({ id, value }) => [id, value])));
  const byName = nameOf(Object.fromEntries(attributes.map(({ name, value }) => [name, value])));
  return byId ?? byName ?? asset?.title ?? "";
}
