// What each kind of asset becomes on the globe.

import {
  Cesium3DTileset,
  CesiumTerrainProvider,
  EdgeDisplayMode,
  ImageryLayer,
  type ImageryProvider,
} from "cesium";
import { buildingStyle } from "./building_style";
import { RequestError, type Asset, type Kind } from "./catalogue";
import { ranks, type Globe } from "./globe";
import { Hillshade } from "./hillshade";
import { Labels } from "./labels";
import { MvtImageryProvider } from "./mvt_imagery";
import { drawPoints } from "./point_drawing";
import { rasterLayer } from "./raster_layer";
import { symbolOf } from "./symbols";
import { styleAt } from "./tileset_style";
import { VectorSource } from "./vector_source";
import type { Drawing, Failed } from "./view";

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

async function drawTerrain(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const folder = new URL("./", asset.service).href;
  const provider = await CesiumTerrainProvider.fromUrl(folder, {
    requestVertexNormals: true,
    requestWaterMask: true,
  });
  const hillshade = new Hillshade(globe, asset, failed);
  // Hiding gives the ground back only if no other terrain has taken it meanwhile.
  const leave = (): void => {
    if (globe.widget.scene.terrainProvider === provider) globe.setTerrain(undefined);
  };
  return {
    setVisible(visible) {
      if (visible) globe.setTerrain(provider);
      else leave();
      hillshade.setVisible(visible);
    },
    setOpacity: (opacity) => hillshade.setOpacity(opacity),
    setShaded: (shaded) => hillshade.setWanted(shaded),
    busy: () => hillshade.busy(),
    destroy() {
      leave();
      hillshade.destroy();
    },
  };
}

async function drawImagery(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const layer = await rasterLayer(asset.service, asset.bounds, failed);
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
