// The portal: reads the catalogue, makes the globe, and ties panels, layers and clicks together.

import "./roots";
import "cesium/Build/Cesium/Widgets/CesiumWidget/CesiumWidget.css";
import {
  Cartesian2,
  Cesium3DTileset,
  ScreenSpaceEventHandler,
  ScreenSpaceEventType,
  type CesiumWidget,
} from "cesium";
import { attributePanel } from "./attribute_panel";
import { classLegend } from "./class_legend";
import { loadCatalogue, type Asset, type Group } from "./catalogue";
import { element } from "./element";
import { makeGlobe, type Globe } from "./globe";
import { setLanguage, currentLanguage, t, onLanguage, type Language } from "./i18n";
import { layerPanel } from "./layer_panel";
import { Layer, flyOnTerrain, messageOf } from "./layers";
import { legend } from "./legend";
import { mapTools } from "./map_tools";
import { Picker, type Picked } from "./picking";
import { openServices } from "./service_dialog";
import { statusBar } from "./status_bar";

/** What pages that embed the portal, and the tests, may use: `window.cim`. */
export interface Portal {
  /** The Cesium widget, once `ready`. */
  viewer: CesiumWidget | undefined;
  /** Layers by asset id, in catalogue order. */
  layers: Map<string, Layer>;
  /** Resolves when the catalogue is read and the first layers are on the globe. */
  ready: Promise<void>;
  /** Resolves when every tile of the present view is drawn. */
  settled(): Promise<void>;
  /** Click at a pixel of the globe (CSS pixels from its upper left corner). */
  pick(x: number, y: number): Promise<Picked | undefined>;
  /** Fly to the asset `id` and show it. */
  open(id: string): Promise<void>;
  setLanguage(language: Language): void;
  language(): Language;
}

declare global {
  interface Window {
    cim: Portal;
  }
}

/** Extent in degrees up to which all assets are looked at together. */
const widest_deg = 70;

const layers = new Map<string, Layer>();
const app = document.getElementById("app")!;
const view = element("main", { class: "view" });
const panel = layerPanel({ layers: () => layers.values(), openServices });
app.append(panel.element, view);

/** Bounds (degrees) and heights (metres) of several assets together. */
function together(assets: Asset[]): [number[], number[]] {
  const least = (pick: (asset: Asset) => number): number => Math.min(...assets.map(pick));
  const most = (pick: (asset: Asset) => number): number => Math.max(...assets.map(pick));
  return [
    [
      least((asset) => asset.bounds[0]),
      least((asset) => asset.bounds[1]),
      most((asset) => asset.bounds[2]),
      most((asset) => asset.bounds[3]),
    ],
    [least((asset) => asset.heights[0]), most((asset) => asset.heights[1])],
  ];
}

function tilesetLayers(globe: Globe): (tileset: Cesium3DTileset) => Layer | undefined {
  return (tileset) => {
    const url = new URL(tileset.resource.url, document.baseURI).pathname;
    const owner = [...layers.values()].find(({ asset }) => new URL(asset.service).pathname === url);
    globe.draw();
    return owner;
  };
}

function listen(globe: Globe): (pixel: Cartesian2) => Promise<Picked | undefined> {
  const picker = new Picker(globe, tilesetLayers(globe));
  const attributes = attributePanel(() => picker.clear());
  view.append(attributes.element);
  const pick = async (pixel: Cartesian2): Promise<Picked | undefined> => {
    const picked = await picker.pick(pixel);
    attributes.show(picked);
    return picked;
  };
  const handler = new ScreenSpaceEventHandler(globe.widget.canvas);
  handler.setInputAction((event: ScreenSpaceEventHandler.PositionedEvent) => {
    globe.widget.canvas.focus();
    void pick(Cartesian2.clone(event.position));
  }, ScreenSpaceEventType.LEFT_CLICK);
  return pick;
}

/** Show the first terrain and everything else, and look at the asset asked for or at the city. */
async function openFirst(globe: Globe, groups: Group[]): Promise<void> {
  const all = [...layers.values()];
  const terrains = all.filter((layer) => layer.asset.kind === "terrain");
  const asked = layers.get(new URLSearchParams(location.search).get("asset") ?? "");
  const first = (kind: string): Layer | undefined => all.find((layer) => layer.asset.kind === kind);
  const focus = asked ?? first("buildings") ?? first("pointcloud");
  if (focus === undefined) home(globe, groups, 0);
  const ground = focus && flyOnTerrain(focus, all, 0);
  const terrain = terrains.find((layer) => layer.visible) ?? terrains[0];
  const others = all.filter((layer) => layer.asset.kind !== "terrain");
  await Promise.all([ground, terrain?.show(), ...others.map((layer) => layer.show())]);
}

function home(globe: Globe, groups: Group[], seconds: number): void {
  const assets = groups.flatMap((group) => group.assets);
  if (assets.length === 0) return;
  const [bounds, heights] = together(assets);
  const [west = 0, south = 0, east = 0, north = 0] = bounds;
  const area = ({ bounds: [w, s, e, n] }: Asset): number => (e - w) * (n - s);
  // The middle of assets on two continents is an ocean: then the largest asset is home.
  const scattered = east - west > widest_deg || north - south > widest_deg;
  const largest = assets.reduce((best, asset) => (area(asset) > area(best) ? asset : best));
  if (scattered) globe.lookAt(largest.bounds, largest.heights, seconds);
  else globe.lookAt(bounds, heights, seconds);
}

async function catalogue(): Promise<Group[]> {
  for (;;) {
    panel.showLoading();
    try {
      return await loadCatalogue();
    } catch (error) {
      await new Promise<void>((again) => panel.showError(messageOf(error), again));
    }
  }
}

async function settled(globe: Globe): Promise<void> {
  const { scene } = globe.widget;
  // Two frames in a row without work: the first may only just have asked for its tiles.
  for (let quiet = 0; quiet < 3; ) {
    await new Promise<void>((next) => {
      const stop = scene.postRender.addEventListener(() => {
        stop();
        setTimeout(next, 60);
      });
      globe.draw();
    });
    const busy = !scene.globe.tilesLoaded || [...layers.values()].some((layer) => layer.busy());
    quiet = busy ? 0 : quiet + 1;
  }
}

async function start(): Promise<void> {
  setLanguage(currentLanguage());
  let globe: Globe;
  try {
    globe = await makeGlobe(view);
  } catch (error) {
    const notice = element("div", { class: "notice fatal", role: "alert" }, t("noWebgl"));
    onLanguage(() => notice.replaceChildren(t("noWebgl")));
    view.replaceChildren(notice);
    throw error;
  }
  portal.viewer = globe.widget;
  portal.settled = () => settled(globe);
  const pick = listen(globe);
  portal.pick = (x, y) => pick(new Cartesian2(x, y));
  const groups = await catalogue();
  for (const asset of groups.flatMap((group) => group.assets)) layers.set(asset.id, new Layer(globe, asset));
  portal.open = async (id) => {
    const layer = layers.get(id);
    if (layer === undefined) throw new RangeError(`no layer ${id}`);
    await Promise.all([flyOnTerrain(layer, layers.values()), layer.show()]);
  };
  view.append(
    mapTools(globe, () => home(globe, groups, 1.6)),
    element("div", { class: "legends" }, classLegend(layers.values()), legend(layers.values())),
    statusBar(globe, () => [...layers.values()].some((layer) => layer.busy())),
  );
  if (layers.size === 0) {
    panel.showEmpty();
    return;
  }
  panel.showGroups(groups, layers);
  await openFirst(globe, groups);
}

const early = (): never => {
  throw new Error("the portal is not ready yet: await cim.ready");
};
const portal: Portal = {
  viewer: undefined,
  layers,
  ready: Promise.resolve(),
  settled: early,
  pick: early,
  open: early,
  setLanguage,
  language: currentLanguage,
};
window.cim = portal;
portal.ready = start();
