// The map as a view: MapLibre GL JS with its tools, its status bar, and clicks.

import type { Map as LibreMap } from "maplibre-gl";
import { element } from "./element";
import { onLanguage, t } from "./i18n";
import { mapDrawings } from "./map_drawings";
import { mapLibrary, writesChinese } from "./map_library";
import { MapPicker, metresPerPixelAt } from "./map_picking";
import { MapStage } from "./map_stage";
import { mapStatus } from "./map_status";
import { toolBar } from "./tool_bar";
import type { Failed, Page, Place, View } from "./view";

export interface MapView extends View {
  map: LibreMap;
}

const paper = "#faf8f4";
const nearest = 18;

async function settled(map: LibreMap, page: Page): Promise<void> {
  for (let quiet = 0; quiet < 3; ) {
    await new Promise((next) => setTimeout(next, 60));
    quiet = !map.loaded() || !map.areTilesLoaded() || map.isMoving() || page.busy() ? 0 : quiet + 1;
  }
}

function listen(map: LibreMap, page: Page): void {
  const canvas = map.getCanvas();
  canvas.setAttribute("role", "application");
  canvas.addEventListener("pointerdown", () => (canvas.dataset["pointer"] = ""));
  canvas.addEventListener("blur", () => delete canvas.dataset["pointer"]);
  const keys: Record<string, () => void> = { n: () => map.resetNorth(), h: () => page.home() };
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  map.on("click", ({ point }) => page.clicked(point.x, point.y));
  const name = (): void => canvas.setAttribute("aria-label", t("map"));
  onLanguage(name);
  name();
}

/** Make the map in `parent`. */
export async function mapView(parent: HTMLElement, page: Page): Promise<MapView> {
  const library = await mapLibrary();
  const canvas = element("div", { class: "map-canvas" });
  const box = element("div", { class: "map" }, canvas);
  parent.prepend(box);
  let map: LibreMap;
  try {
    map = new library.Map({
      container: canvas,
      style: {
        version: 8,
        sources: {},
        layers: [{ id: "paper", type: "background", paint: { "background-color": paper } }],
      },
      maxPitch: 0,
      attributionControl: { compact: false },
      ...(writesChinese() ? {} : { localIdeographFontFamily: false as const }),
    });
    await map.once("load");
  } catch (error) {
    box.remove();
    throw error;
  }
  const stage = new MapStage(map, library);
  const picker = new MapPicker(stage, page.layers);
  const failures = new Map<string, Failed>();
  map.on("error", (event) => {
    const { error, sourceId } = event as unknown as { error: unknown; sourceId?: string };
    // A void of a raster has no tile.
    if ((error as { status?: number }).status === 404) return;
    const failed = sourceId === undefined ? undefined : failures.get(sourceId);
    if (failed === undefined) console.error(error);
    else failed(error);
  });
  listen(map, page);
  box.append(
    toolBar([
      ["plus", "zoomIn", () => map.zoomIn()],
      ["minus", "zoomOut", () => map.zoomOut()],
      ["north", "north", () => map.resetNorth()],
      ["home", "home", () => page.home()],
    ]),
    mapStatus(map, () => page.busy()),
  );
  return {
    name: "2d",
    element: box,
    map,
    draws: (kind) => mapDrawings[kind] !== undefined,
    draw(asset, failed) {
      const draw = mapDrawings[asset.kind];
      if (draw === undefined) throw new RangeError(`${asset.kind} has no place on a map`);
      failures.set(asset.id, failed);
      return draw(stage, asset);
    },
    lookAt([west = 0, south = 0, east = 0, north = 0], _heights, seconds) {
      const box: [number, number, number, number] = [west, south, east, north];
      map.fitBounds(box, { padding: 48, maxZoom: nearest, duration: 1000 * seconds });
    },
    place() {
      const { lng, lat } = map.getCenter().wrap();
      return { longitude: lng, latitude: lat, resolution_m: metresPerPixelAt(map.getZoom(), lat) };
    },
    goTo({ longitude, latitude, resolution_m }: Place) {
      map.resize();
      const zoom = Math.log2(metresPerPixelAt(0, latitude) / resolution_m);
      map.jumpTo({ center: [longitude, latitude], zoom });
    },
    pick: (x, y) => picker.pick(x, y),
    clear: () => picker.clear(),
    settled: () => settled(map, page),
  };
}
