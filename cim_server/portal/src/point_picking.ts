// Which point a click hit, and what was measured there.

import {
  Cartesian2,
  Cartographic,
  JulianDate,
  Math as CesiumMath,
  Matrix4,
  PerspectiveFrustum,
  type Cartesian3,
  type Cesium3DTileContent,
  type Scene,
} from "cesium";
import type { Asset } from "./catalogue";
import { t } from "./i18n";
import type { Attribute } from "./picked";
import { className, columnName, datumName } from "./point_columns";
import { readPointTile, type PointTile } from "./point_tile";

/** A point that was found. */
export interface PickedPoint {
  asset: Asset;
  tile: PointTile;
  row: number;
  place: Cartesian3;
}

/** Pixels beside a point at which a click still means it. */
const nearby = 3;
let latest: { url: string; tile: Promise<PointTile> } | undefined;

function tileAt(url: string): Promise<PointTile> {
  if (latest?.url !== url) latest = { url, tile: readPointTile(url) };
  const { tile } = latest;
  tile.catch(() => {
    if (latest?.tile === tile) latest = undefined;
  });
  return tile;
}

/**
 * The point of `content` that is drawn at a pixel of the canvas: of those whose squares cover it,
 * the one in front. Sizes are those of CesiumJS' shader for points of attenuated size.
 */
export async function pointAt(
  scene: Scene,
  content: Cesium3DTileContent,
  pixel: Cartesian2,
  asset: Asset,
  hidden: readonly number[],
): Promise<PickedPoint | undefined> {
  const { camera, drawingBufferWidth: width, drawingBufferHeight: height } = scene;
  const { frustum } = camera;
  const shading = content.tileset.pointCloudShading;
  if (!(frustum instanceof PerspectiveFrustum) || frustum.fovy === undefined) return undefined;
  // The camera may move while the tile is read.
  const view = Matrix4.clone(camera.viewMatrix);
  const projection = Matrix4.clone(frustum.projectionMatrix);
  const scale = width / scene.canvas.clientWidth;
  const perDepth =
    (content.tile.geometricError * shading.geometricErrorScale * height) /
    (2 * Math.tan(frustum.fovy / 2));
  const most = shading.maximumAttenuation * scale;
  // Half the side in pixels of a point's square, by its distance in metres.
  const halfOf = (depth: number): number => Math.max(Math.min(perDepth / depth, most), 1) / 2;
  const [px, py] = [pixel.x * scale, pixel.y * scale];
  const tile = await tileAt(content.url);
  const eye = Matrix4.multiply(view, tile.toEarth, new Matrix4());
  const [e, p] = [Matrix4.toArray(eye), Matrix4.toArray(projection)] as [number[], number[]];
  const of = (m: number[], i: number): number => m[i] ?? 0;
  let [front, found, closest, beside] = [Infinity, -1, nearby, -1];
  for (let row = 0; row < tile.count; row += 1) {
    const [x, y, z] = [tile.at(row, 0), tile.at(row, 1), tile.at(row, 2)];
    const depth = -(of(e, 2) * x + of(e, 6) * y + of(e, 10) * z + of(e, 14));
    if (depth <= 0) continue;
    const eyeX = of(e, 0) * x + of(e, 4) * y + of(e, 8) * z + of(e, 12);
    const eyeY = of(e, 1) * x + of(e, 5) * y + of(e, 9) * z + of(e, 13);
    const clipX = (of(p, 0) * eyeX - of(p, 8) * depth) / depth;
    const clipY = (of(p, 5) * eyeY - of(p, 9) * depth) / depth;
    const away = Math.max(
      Math.abs(((clipX + 1) / 2) * width - px - scale / 2),
      Math.abs(((1 - clipY) / 2) * height - py - scale / 2),
    );
    if (away > nearby * scale && away > halfOf(depth)) continue;
    if (hidden.includes(tile.value("classification", row) ?? -1)) continue;
    if (away <= halfOf(depth) && depth < front) [front, found] = [depth, row];
    if (away <= closest) [closest, beside] = [away, row];
  }
  const row = found >= 0 ? found : beside;
  return row < 0 ? undefined : { asset, tile, row, place: tile.place(row) };
}

/** What is known of a point, in the language now shown: its class and its height first. */
export function pointAttributes({ asset, tile, row, place }: PickedPoint): Attribute[] {
  const { longitude, latitude, height } = Cartographic.fromCartesian(place);
  const [lon, lat] = [CesiumMath.toDegrees(longitude), CesiumMath.toDegrees(latitude)];
  const constants = (asset.info["constants"] ?? {}) as Record<string, number | null>;
  const values = new Map<string, number | null>();
  for (const id of tile.properties) values.set(id, tile.value(id, row));
  for (const [id, value] of Object.entries(constants)) values.set(id, value);
  const attributes: Attribute[] = [];
  const kind = values.get("classification");
  if (typeof kind === "number") {
    const value = `${kind} ${className(asset, kind)}`;
    attributes.push({ id: "classification", name: columnName(asset, "classification"), value });
  }
  const datum = asset.info["datum"] as { id: string; undulations_m: number[] } | undefined;
  if (datum !== undefined) {
    const name = `${t("elevation")}（${datumName(datum.id)}）`;
    const above = height - undulation(asset, datum.undulations_m, lon, lat);
    attributes.push({ id: "point:elevation", name, value: `${above.toFixed(3)} m` });
  }
  const ellipsoidal = { id: "point:height", name: t("ellipsoidalHeight"), value: `${height.toFixed(3)} m` };
  const where = `${lon.toFixed(8)}, ${lat.toFixed(8)}`;
  attributes.push(ellipsoidal, { id: "point:place", name: `${t("frame")} ${t("lonLat")}`, value: where });
  const colour = tile.colour(row);
  if (colour) attributes.push({ id: "point:colour", name: t("pointColour"), value: colour.join(", ") });
  for (const [id, value] of values) {
    if (id === "classification") continue;
    attributes.push({ id, name: columnName(asset, id), value });
    const date = id === "gps_time" && typeof value === "number" ? utc(asset, value) : undefined;
    if (date !== undefined) attributes.push({ id: "point:date", name: t("measured"), value: date });
  }
  return attributes;
}

/** Metres of the geoid above the ellipsoid, bilinear between the corners of the asset's bounds. */
function undulation(asset: Asset, corners: number[], lon: number, lat: number): number {
  const [west, south, east, north] = asset.bounds;
  const [sw = 0, se = 0, nw = 0, ne = 0] = corners;
  const x = east > west ? (lon - west) / (east - west) : 0;
  const y = north > south ? (lat - south) / (north - south) : 0;
  return (sw * (1 - x) + se * x) * (1 - y) + (nw * (1 - x) + ne * x) * y;
}

/** When a point was measured, if its seconds count from a date. */
function utc(asset: Asset, seconds: number): string | undefined {
  const said = asset.fields.find(({ id }) => id === "gps_time")?.description ?? "";
  if (!said.includes("6 January 1980")) return undefined;
  const date = JulianDate.fromIso8601("1980-01-06T00:00:00Z");
  return JulianDate.toIso8601(JulianDate.addSeconds(date, seconds + 1e9, date), 2);
}
