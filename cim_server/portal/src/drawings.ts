// What each kind of asset becomes on the globe.

import {
  Cesium3DTileset,
  CesiumTerrainProvider,
  Credit,
  EdgeDisplayMode,
  ImageryLayer,
  Rectangle,
  Resource,
  UrlTemplateImageryProvider,
  type ImageryProvider,
} from "cesium";
import { buildingStyle, styleAt } from "./building_style";
import { RequestError, getJson, type Asset, type Kind } from "./catalogue";
import { ranks, type Globe } from "./globe";
import { Labels } from "./labels";
import { MvtImageryProvider } from "./mvt_imagery";
import { drawPoints, type Colouring } from "./point_drawing";
import { symbolOf } from "./symbols";
import { VectorSource } from "./vector_source";

/** An asset on the globe. */
export interface Drawing {
  setVisible(visible: boolean): void;
  setOpacity(opacity: number): void;
  /** Only of points. */
  setColouring?(colouring: Colouring): void;
  /** Whether tiles for the present view are still on their way. */
  busy(): boolean;
  destroy(): void;
}

/** Tells the layer's row that something could not be loaded. */
export type Failed = (error: unknown) => void;

type Draw = (globe: Globe, asset: Asset, failed: Failed) => Promise<Drawing>;

function drapedDrawing(globe: Globe, layer: ImageryLayer, labels: Labels[] = []): Drawing {
  return {
    setVisible(visible) {
      layer.show = visible;
      for (const group of labels) group.setVisible(visible);
      globe.draw();
    },
    setOpacity(opacity) {
      layer.alpha = opacity;
      for (const group of labels) group.setOpacity(opacity);
      globe.draw();
    },
    busy: () => false,
    destroy() {
      for (const group of labels) group.destroy();
      globe.undrape(layer);
    },
  };
}

async function drawTerrain(globe: Globe, asset: Asset): Promise<Drawing> {
  const folder = new URL("./", asset.service).href;
  const provider = await CesiumTerrainProvider.fromUrl(folder, {
    requestVertexNormals: true,
    requestWaterMask: true,
  });
  // Hiding gives the ground back only if no other terrain has taken it meanwhile.
  const leave = (): void => {
    if (globe.widget.scene.terrainProvider === provider) globe.setTerrain(undefined);
  };
  return {
    setVisible: (visible) => (visible ? globe.setTerrain(provider) : leave()),
    setOpacity: () => undefined,
    busy: () => false,
    destroy: leave,
  };
}

interface RasterTileJson {
  tiles: string[];
  minzoom?: number;
  maxzoom?: number;
  bounds?: [number, number, number, number];
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

async function drawImagery(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const json = await getJson<RasterTileJson>(asset.service);
  const template = json.tiles[0];
  if (template === undefined) throw new RequestError(`${asset.service}: TileJSON names no tiles`);
  const url = new URL(template, asset.service);
  const side = Number(url.searchParams.get("tilesize") ?? 256);
  const rectangle = Rectangle.fromDegrees(...asset.bounds);
  const provider = new UrlTemplateImageryProvider({
    url: new Resource({ url: url.href.replaceAll("%7B", "{").replaceAll("%7D", "}") }),
    rectangle,
    tileWidth: side,
    tileHeight: side,
    minimumLevel: lowestLevel(rectangle, json.minzoom ?? 0),
    maximumLevel: json.maxzoom ?? 22,
    enablePickFeatures: false,
    credit: json.attribution ? new Credit(json.attribution) : undefined,
  });
  provider.errorEvent.addEventListener(failed);
  const layer = new ImageryLayer(provider);
  globe.drape(layer, ranks.imagery);
  return drapedDrawing(globe, layer);
}

async function drawVector(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const source = await VectorSource.open(asset);
  const symbol = symbolOf(asset);
  const provider = new MvtImageryProvider(source, symbol, asset, failed);
  const layer = new ImageryLayer(provider as unknown as ImageryProvider);
  globe.drape(layer, symbol.rank);
  const named = source.layers.filter((name) => name.endsWith("_label"));
  const labels = (named.length > 0 ? named : source.layers).map(
    (name) => new Labels(globe, source, name, symbol, named.length === 0, failed),
  );
  return drapedDrawing(globe, layer, labels);
}

async function drawBuildings(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const [style, tileset] = await Promise.all([
    buildingStyle(),
    Cesium3DTileset.fromUrl(asset.service, {
      edgeDisplayMode: EdgeDisplayMode.SURFACES_AND_EDGES,
      dynamicScreenSpaceError: true,
      preloadFlightDestinations: true,
    }),
  ]);
  tileset.style = styleAt(style, 1);
  tileset.tileFailed.addEventListener((event: { url: string; message: string }) =>
    failed(new RequestError(`${event.url}: ${event.message}`)),
  );
  const { scene } = globe.widget;
  scene.primitives.add(tileset);
  globe.draw();
  return {
    setVisible(visible) {
      tileset.show = visible;
      globe.draw();
    },
    setOpacity(opacity) {
      tileset.style = styleAt(style, opacity);
      globe.draw();
    },
    busy: () => tileset.show && !tileset.tilesLoaded,
    destroy: () => scene.primitives.remove(tileset),
  };
}

/** One way to draw each kind. */
export const drawings: Record<Kind, Draw> = {
  terrain: drawTerrain,
  imagery: drawImagery,
  buildings: drawBuildings,
  divisions: drawVector,
  vector: drawVector,
  pointcloud: drawPoints,
};
