// What each kind of asset becomes on the map.

import type { LayerSpecification, SourceSpecification, StyleSpecification } from "maplibre-gl";
import { buildingStyle, legendOf } from "./building_style";
import { RequestError, getJson, type Asset, type Kind } from "./catalogue";
import { levels, type MapStage, type Rank } from "./map_stage";
import { tilesHeld } from "./pmtiles_index";
import { reliefJson } from "./relief";
import type { Drawing } from "./view";

type Draw = (stage: MapStage, asset: Asset) => Promise<Drawing>;

interface TileJson {
  tiles: string[];
  bounds?: [number, number, number, number];
  minzoom?: number;
  maxzoom?: number;
  attribution?: string;
}

type Opacity =
  | "fill-opacity"
  | "line-opacity"
  | "circle-opacity"
  | "circle-stroke-opacity"
  | "text-opacity"
  | "raster-opacity";

/** Opacities by type of layer, as paint properties. */
const opacities: Partial<Record<LayerSpecification["type"], Opacity[]>> = {
  fill: ["fill-opacity"],
  line: ["line-opacity"],
  circle: ["circle-opacity", "circle-stroke-opacity"],
  symbol: ["text-opacity"],
  raster: ["raster-opacity"],
};
/** Live tiles of a city are large from afar, and their footprints specks. */
const footprintZooms = { minzoom: 14, maxzoom: 17 };

async function tileJson(url: string): Promise<TileJson & { template: string }> {
  const json = await getJson<TileJson>(url);
  const first = json.tiles[0];
  if (first === undefined) throw new RequestError(`${url}: TileJSON names no tiles`);
  const template = new URL(first, url).href.replaceAll("%7B", "{").replaceAll("%7D", "}");
  return { ...json, template };
}

/** A source with its layers, which are shown, faded and taken away together. */
function drawingOf(
  stage: MapStage,
  id: string,
  source: SourceSpecification,
  layers: [LayerSpecification, Rank][],
): Drawing {
  const { map } = stage;
  stage.addSource(id, source);
  for (const [layer, rank] of layers) stage.addLayer(layer, rank);
  return {
    setVisible(visible) {
      const value = visible ? "visible" : "none";
      for (const [layer] of layers) map.setLayoutProperty(layer.id, "visibility", value);
    },
    setOpacity(opacity) {
      for (const [layer] of layers) {
        const paint = ("paint" in layer ? layer.paint : undefined) as Record<string, unknown> | undefined;
        for (const name of opacities[layer.type] ?? []) {
          const own = paint?.[name];
          map.setPaintProperty(layer.id, name, opacity * (typeof own === "number" ? own : 1));
        }
      }
    },
    busy: () => !map.isSourceLoaded(id),
    destroy: () => stage.removeSource(id),
  };
}

async function drawVector(stage: MapStage, asset: Asset): Promise<Drawing> {
  const [style, json] = await Promise.all([
    getJson<StyleSpecification>(new URL("style.json", asset.service).href),
    tileJson(asset.service),
  ]);
  stage.writeWith(style.glyphs);
  const features = Number(asset.info["features"] ?? 0);
  const layers = style.layers.flatMap((layer): [LayerSpecification, Rank][] => {
    if (layer.type === "background") return [];
    const order = Number((layer.metadata as Record<string, unknown>)["cim:order"]);
    const level = levels[layer.type as keyof typeof levels];
    const own = { ...layer, id: `${asset.id}/${layer.id}`, source: asset.id };
    // Names of cities go before those of counties; a click finds the county.
    return [[own as LayerSpecification, [level, order, level === levels.fill ? -features : features]]];
  });
  const source: SourceSpecification = {
    type: "vector",
    tiles: [stage.tilesIn(asset.id, json.template, tilesHeld(asset))],
    bounds: json.bounds ?? asset.bounds,
    minzoom: json.minzoom ?? 0,
    maxzoom: json.maxzoom ?? 14,
    attribution: json.attribution ?? "",
  };
  return drawingOf(stage, asset.id, source, layers);
}

async function rasterDrawing(stage: MapStage, asset: Asset, url: string, level: number): Promise<Drawing> {
  const json = await tileJson(url);
  const source: SourceSpecification = {
    type: "raster",
    tiles: [json.template],
    tileSize: Number(new URL(json.template).searchParams.get("tilesize") ?? 256),
    bounds: json.bounds ?? asset.bounds,
    minzoom: json.minzoom ?? 0,
    maxzoom: json.maxzoom ?? 22,
    attribution: json.attribution ?? "",
  };
  const layer: LayerSpecification = { id: asset.id, type: "raster", source: asset.id };
  return drawingOf(stage, asset.id, source, [[layer, [level, 0, 0]]]);
}

const drawImagery: Draw = (stage, asset) => rasterDrawing(stage, asset, asset.service, levels.imagery);

/** A terrain is seen by its hillshade, and that only when it is switched on, as on the globe. */
async function drawTerrain(stage: MapStage, asset: Asset): Promise<Drawing> {
  const url = `${reliefJson(asset, "hillshade")}?tilesize=512`;
  const shade = await rasterDrawing(stage, asset, url, levels.relief);
  let [shaded, visible] = [false, false];
  const follow = (): void => shade.setVisible(shaded && visible);
  follow();
  return {
    ...shade,
    setVisible(wanted) {
      visible = wanted;
      follow();
    },
    setShaded(wanted) {
      shaded = wanted;
      follow();
    },
    busy: () => shaded && visible && shade.busy(),
  };
}

/** Footprints straight from the features, in the colours of the white model. */
async function drawBuildings(stage: MapStage, asset: Asset): Promise<Drawing> {
  const classes = legendOf(await buildingStyle());
  const [lowest] = classes;
  const bounded = classes.filter(({ from }) => from !== undefined && from > 0);
  const colour = [
    "step",
    ["to-number", ["get", "cim:height_m"], 0],
    lowest?.color ?? "#d8d2c8",
    ...bounded.flatMap(({ color, from }) => [from, color]),
  ];
  const template = new URL("{z}/{x}/{y}.mvt?filter=TRUE", asset.service).href;
  const source: SourceSpecification = {
    type: "vector",
    tiles: [template.replaceAll("%7B", "{").replaceAll("%7D", "}")],
    bounds: asset.bounds,
    ...footprintZooms,
    attribution: String(asset.properties["attribution"] ?? ""),
  };
  const own = { source: asset.id, "source-layer": asset.id };
  return drawingOf(stage, asset.id, source, [
    [
      {
        ...own,
        id: `${asset.id}/area`,
        type: "fill",
        paint: { "fill-color": colour as never, "fill-antialias": false },
      },
      [levels.fill, 30, 0],
    ],
    [
      {
        ...own,
        id: `${asset.id}/outline`,
        type: "line",
        minzoom: 15,
        paint: { "line-color": "#7d7264", "line-width": 0.7 },
      },
      [levels.line, 30, 0],
    ],
  ]);
}

/** One way to draw each kind; none for what has no place on a map. */
export const mapDrawings: Partial<Record<Kind, Draw>> = {
  terrain: drawTerrain,
  imagery: drawImagery,
  buildings: drawBuildings,
  divisions: drawVector,
  vector: drawVector,
};
