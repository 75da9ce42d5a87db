// A click on the map: the feature on top there, whole, and its highlight.

import type { GeoJSONSource, MapGeoJSONFeature, PointLike } from "maplibre-gl";
import type { Asset } from "./catalogue";
import { levels, type MapStage } from "./map_stage";
import { pickedOf, type Hit, type Picked } from "./picked";

const colour = "#e08600";
/** How far a click may miss a line or a point, in pixels. */
const reach_px = 6;
const source = "cim-picked";

/** How wide a CSS pixel is at a zoom and a latitude in degrees, in metres. */
export function metresPerPixelAt(zoom: number, latitude: number): number {
  // Web Mercator, tiles of 512 pixels; the radius is that of its sphere.
  return (2 * Math.PI * 6_378_137 * Math.cos((latitude * Math.PI) / 180)) / (512 * 2 ** zoom);
}

/** Reads and highlights features; holds at most one highlight. */
export class MapPicker {
  private turn = 0;

  constructor(
    private readonly stage: MapStage,
    private readonly assets: ReadonlyMap<string, { asset: Asset }>,
  ) {
    const empty = { type: "FeatureCollection" as const, features: [] };
    stage.addSource(source, { type: "geojson", data: empty });
    const mark = { source };
    stage.addLayer(
      { ...mark, id: "cim-picked-area", type: "fill", filter: ["==", ["geometry-type"], "Polygon"], paint: { "fill-color": colour, "fill-opacity": 0.18 } },
      [levels.mark, 0, 0],
    );
    stage.addLayer(
      { ...mark, id: "cim-picked-line", type: "line", layout: { "line-join": "round" }, paint: { "line-color": colour, "line-width": 3 } },
      [levels.mark, 1, 0],
    );
    stage.addLayer(
      { ...mark, id: "cim-picked-point", type: "circle", filter: ["==", ["geometry-type"], "Point"], paint: { "circle-color": colour, "circle-radius": 7, "circle-stroke-color": "#fff", "circle-stroke-width": 2 } },
      [levels.mark, 2, 0],
    );
  }

  async pick(x: number, y: number): Promise<Picked | undefined> {
    this.clear();
    const { turn } = this;
    const hit = this.hit(x, y);
    if (hit === undefined) return undefined;
    const [picked, feature] = await pickedOf(hit);
    if (turn !== this.turn) return undefined;
    if (feature?.geometry) this.mark([feature as GeoJSON.Feature]);
    return picked;
  }

  clear(): void {
    this.turn += 1;
    this.mark([]);
  }

  private mark(features: GeoJSON.Feature[]): void {
    this.stage.map
      .getSource<GeoJSONSource>(source)!
      .setData({ type: "FeatureCollection", features });
  }

  private hit(x: number, y: number): Hit | undefined {
    const { map } = this.stage;
    const found =
      this.top([x, y]) ??
      this.top([
        [x - reach_px, y - reach_px],
        [x + reach_px, y + reach_px],
      ]);
    if (found === undefined) return undefined;
    const { geometry, id, properties, layer } = found;
    // A name hangs on the point that it stands for.
    const named = layer.type === "symbol" && geometry.type === "Point";
    const { lng, lat } = map.unproject([x, y]);
    const [longitude = lng, latitude = lat] = named ? geometry.coordinates : [];
    return {
      asset: this.assets.get(found.source)!.asset,
      id: typeof id === "number" ? id : undefined,
      properties,
      longitude,
      latitude,
      reach_m: reach_px * metresPerPixelAt(map.getZoom(), lat),
    };
  }

  private top(where: PointLike | [PointLike, PointLike]): MapGeoJSONFeature | undefined {
    const features = this.stage.map.queryRenderedFeatures(where);
    return features.find(({ source: id }) => this.assets.has(id));
  }
}
