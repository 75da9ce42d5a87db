// An asset's addresses, and the code that puts it into Cesium, MapLibre and QGIS.

import { versioned, type Asset } from "./catalogue";
import type { TextKey } from "./i18n";
import { reliefJson } from "./relief";
import { serverRoot } from "./roots";

/** One address worth copying. */
export interface Address {
  label: TextKey;
  url: string;
}

const readable = (url: string): string =>
  url.replaceAll("%7B", "{").replaceAll("%7D", "}").replaceAll("%7b", "{").replaceAll("%7d", "}");

/** Tile template of a vector or imagery asset. */
export function template(asset: Asset): string {
  return readable(asset.links["xyz"] ?? new URL("{z}/{x}/{y}.mvt", asset.service).href);
}

/** Every address of `asset`, the one that follows publications first. */
export function addressesOf(asset: Asset): Address[] {
  const addresses: Address[] = [{ label: "urlCurrent", url: asset.service }];
  const fixed = versioned(asset);
  if (fixed !== asset.service) addresses.push({ label: "urlVersion", url: fixed });
  if (!["buildings", "terrain", "pointcloud"].includes(asset.kind)) {
    addresses.push({ label: "urlXyz", url: template(asset) });
  }
  if (asset.kind === "imagery") {
    const capabilities = `raster/${asset.id}/WMTSCapabilities.xml`;
    addresses.push({ label: "urlWmts", url: new URL(capabilities, serverRoot).href });
  }
  const archive = asset.links["pmtiles"];
  if (archive !== undefined) addresses.push({ label: "urlPmtiles", url: archive });
  addresses.push({ label: "urlStac", url: asset.stac });
  return addresses;
}

export const clients = ["Cesium", "MapLibre", "QGIS"] as const;
export type Client = (typeof clients)[number];

function cesium(asset: Asset): string {
  const url = JSON.stringify(asset.service);
  switch (asset.kind) {
    case "buildings":
      return `const tileset = await Cesium.Cesium3DTileset.fromUrl(
  ${url},
  { edgeDisplayMode: Cesium.EdgeDisplayMode.SURFACES_AND_EDGES },
);
const style = await fetch(${JSON.stringify(new URL("styles/buildings.json", serverRoot).href)});
tileset.style = new Cesium.Cesium3DTileStyle({ color: (await style.json()).color });
viewer.scene.primitives.add(tileset);
viewer.zoomTo(tileset);`;
    case "pointcloud":
      return `const tileset = await Cesium.Cesium3DTileset.fromUrl(
  ${url},
  { maximumScreenSpaceError: 6 },
);
tileset.pointCloudShading.attenuation = true;
tileset.pointCloudShading.geometricErrorScale = 0.5;
tileset.pointCloudShading.maximumAttenuation = 6;
viewer.scene.primitives.add(tileset);
viewer.zoomTo(tileset);`;
    case "terrain":
      return `viewer.terrainProvider = await Cesium.CesiumTerrainProvider.fromUrl(
  ${JSON.stringify(new URL("./", asset.service).href)},
  { requestVertexNormals: true },
);
viewer.scene.globe.depthTestAgainstTerrain = true;`;
    case "imagery":
      return `viewer.imageryLayers.addImageryProvider(
  new Cesium.UrlTemplateImageryProvider({
    url: ${JSON.stringify(template(asset))},
    rectangle: Cesium.Rectangle.fromDegrees(${asset.bounds.join(", ")}),
  }),
);`;
    default:
      return `// npm install @mapbox/vector-tile pbf
import { VectorTile } from "@mapbox/vector-tile";
import { PbfReader } from "pbf";

class VectorTiles extends Cesium.UrlTemplateImageryProvider {
  async requestImage(x, y, level) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 512;
    const url = this.url.replace("{z}", level).replace("{x}", x).replace("{y}", y);
    const response = await fetch(url);
    if (!response.ok) return canvas;
    const tile = new VectorTile(new PbfReader(await response.arrayBuffer()));
    const pen = canvas.getContext("2d");
    pen.strokeStyle = "#ffd666";
    for (const layer of Object.values(tile.layers)) {
      for (let i = 0; i < layer.length; i++) {
        for (const ring of layer.feature(i).loadGeometry()) {
          pen.beginPath();
          for (const p of ring) pen.lineTo((p.x * 512) / layer.extent, (p.y * 512) / layer.extent);
          pen.stroke();
        }
      }
    }
    return canvas;
  }
}
viewer.imageryLayers.addImageryProvider(new VectorTiles({
  url: ${JSON.stringify(template(asset))},
  rectangle: Cesium.Rectangle.fromDegrees(${asset.bounds.join(", ")}),
  tileWidth: 512, tileHeight: 512,
  maximumLevel: ${Number(asset.info["max_level"] ?? 14)},
}));`;
  }
}

function layerNames(asset: Asset): string[] {
  const layers = asset.info["vector_layers"];
  const names = Array.isArray(layers)
    ? layers.map((layer: { id?: unknown }) => String(layer.id)).filter((id) => !id.endsWith("_label"))
    : [];
  return names.length > 0 ? names : [asset.id];
}

function maplibre(asset: Asset): string | undefined {
  const [west, south, east, north] = asset.bounds;
  const assets = new URL("static/maplibre/", serverRoot).href;
  const open = `// <link rel="stylesheet" href="${assets}maplibre-gl.css">
import * as maplibregl from "${assets}maplibre-gl.mjs";

const map = new maplibregl.Map({
  container: "map",
  style: { version: 8, sources: {}, layers: [] },
  bounds: [${west}, ${south}, ${east}, ${north}],
});
await map.once("load");`;
  const id = JSON.stringify(asset.id);
  switch (asset.kind) {
    case "terrain": {
      const json = JSON.stringify(reliefJson(asset, "terrainrgb"));
      return `${open}
// One source for each: MapLibre reads coarser tiles for the relief than for the shade.
map.addSource("heights", { type: "raster-dem", url: ${json} });
map.addSource("shade", { type: "raster-dem", url: ${json} });
map.addLayer({ id: "hillshade", type: "hillshade", source: "shade" });
map.setTerrain({ source: "heights", exaggeration: 1 });`;
    }
    case "imagery":
      return `${open}
map.addSource(${id}, { type: "raster", tiles: [${JSON.stringify(template(asset))}], tileSize: 256 });
map.addLayer({ id: ${id}, type: "raster", source: ${id} });`;
    case "vector":
    case "divisions":
      return `${open}
map.addSource(${id}, { type: "vector", url: ${JSON.stringify(asset.service)} });
${layerNames(asset)
  .map(
    (name) => `map.addLayer({
  id: ${JSON.stringify(name)}, type: "line", source: ${id}, "source-layer": ${JSON.stringify(name)},
  paint: { "line-color": "#c98a00", "line-width": 1.5 },
});`,
  )
  .join("\n")}`;
    default:
      return undefined;
  }
}

function qgis(asset: Asset, chinese: boolean): string {
  const address = asset.kind === "vector" || asset.kind === "divisions" || asset.kind === "imagery"
    ? template(asset)
    : asset.service;
  const steps: Record<Asset["kind"], [string, string]> = {
    buildings: [
      "QGIS ≥ 3.34：图层 → 添加图层 → 添加平铺场景图层 → 新建 Cesium 3D Tiles 连接，URL：",
      "QGIS ≥ 3.34: Layer → Add Layer → Add Tiled Scene Layer → new Cesium 3D Tiles connection, URL:",
    ],
    terrain: [
      "QGIS ≥ 3.36：图层 → 添加图层 → 添加平铺场景图层 → 新建 Quantized Mesh 连接，URL：",
      "QGIS ≥ 3.36: Layer → Add Layer → Add Tiled Scene Layer → new Quantized Mesh connection, URL:",
    ],
    imagery: [
      "QGIS：浏览器面板 → XYZ Tiles → 新建连接，URL：",
      "QGIS: Browser → XYZ Tiles → New Connection, URL:",
    ],
    vector: [
      "QGIS ≥ 3.14：浏览器面板 → 矢量切片 → 新建通用连接，URL：",
      "QGIS ≥ 3.14: Browser → Vector Tiles → New Generic Connection, URL:",
    ],
    pointcloud: [
      "QGIS ≥ 3.34：图层 → 添加图层 → 添加平铺场景图层 → 新建 Cesium 3D Tiles 连接，URL：",
      "QGIS ≥ 3.34: Layer → Add Layer → Add Tiled Scene Layer → new Cesium 3D Tiles connection, URL:",
    ],
    divisions: [
      "QGIS ≥ 3.14：浏览器面板 → 矢量切片 → 新建通用连接，URL：",
      "QGIS ≥ 3.14: Browser → Vector Tiles → New Generic Connection, URL:",
    ],
  };
  const python: Partial<Record<Asset["kind"], string>> = {
    buildings: `from qgis.core import QgsProject, QgsTiledSceneLayer
layer = QgsTiledSceneLayer("url=${address}", ${JSON.stringify(asset.title)}, "cesiumtiles")
QgsProject.instance().addMapLayer(layer)`,
    terrain: `from qgis.core import QgsProject, QgsTiledSceneLayer
layer = QgsTiledSceneLayer("url=${address}", ${JSON.stringify(asset.title)}, "quantizedmesh")
QgsProject.instance().addMapLayer(layer)`,
    imagery: `uri = "type=xyz&zmin=0&zmax=22&url=${encodeURIComponent(address).replaceAll("%7B", "{").replaceAll("%7D", "}")}"
iface.addRasterLayer(uri, ${JSON.stringify(asset.title)}, "wms")`,
  };
  const vector = `from qgis.core import QgsProject, QgsVectorTileLayer
uri = "type=xyz&zmin=${Number(asset.info["min_level"] ?? 0)}&zmax=${Number(asset.info["max_level"] ?? 14)}&url=${address}"
QgsProject.instance().addMapLayer(QgsVectorTileLayer(uri, ${JSON.stringify(asset.title)}))`;
  return `# ${steps[asset.kind][chinese ? 0 : 1]}
#   ${address}

${python[asset.kind] ?? vector}`;
}

/** The code for one client, or undefined where the client cannot show this kind. */
export function snippetOf(asset: Asset, client: Client, chinese: boolean): string | undefined {
  if (client === "Cesium") return cesium(asset);
  return client === "MapLibre" ? maplibre(asset) : qgis(asset, chinese);
}
