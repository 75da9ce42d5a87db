// The portal: reads the catalogue, shows globe or map, and ties panels, layers and clicks together.

import "./roots";
import type { CesiumWidget } from "cesium";
import type { Map as LibreMap } from "maplibre-gl";
import { attributePanel } from "./attribute_panel";
import { classLegend } from "./class_legend";
import { loadCatalogue, type Asset, type Group } from "./catalogue";
import { element } from "./element";
import { setLanguage, currentLanguage, t, onLanguage, type Language } from "./i18n";
import { layerPanel } from "./layer_panel";
import { Layer, flyOnTerrain, messageOf } from "./layers";
import { legend } from "./legend";
import type { Picked } from "./picked";
import { openServices } from "./service_dialog";
import { viewNames, type Page, type View, type ViewName } from "./view";
import { viewSwitch } from "./view_switch";

/** What pages that embed the portal, and the tests, may use: `window.cim`. */
export interface Portal {
  /** The Cesium widget, once there is a globe. */
  viewer: CesiumWidget | undefined;
  /** The map of MapLibre, once there is one. */
  map: LibreMap | undefined;
  /** Layers by asset id, in catalogue order. */
  layers: Map<string, Layer>;
  /** Resolves when the catalogue is read and the first layers are in the view. */
  ready: Promise<void>;
  /** Resolves when every tile of the present view is drawn. */
  settled(): Promise<void>;
  /** Click at a pixel of the view (CSS pixels from its upper left corner). */
  pick(x: number, y: number): Promise<Picked | undefined>;
  /** Fly to the asset `id` and show it. */
  open(id: string): Promise<void>;
  /** The view that is seen. */
  view(): ViewName;
  /** Show the globe or the map; resolves when every layer is in it. */
  setView(name: ViewName): Promise<void>;
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
const main = element("main", { class: "view" });
const panel = layerPanel({ layers: () => layers.values(), openServices });
app.append(panel.element, main);

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

/** Show the first terrain and everything else, and look at the asset asked for or at the city. */
async function openFirst(view: View, groups: Group[]): Promise<void> {
  const all = [...layers.values()];
  const terrains = all.filter((layer) => layer.asset.kind === "terrain");
  const asked = layers.get(new URLSearchParams(location.search).get("asset") ?? "");
  const first = (kind: string): Layer | undefined => all.find((layer) => layer.asset.kind === kind);
  const focus = asked ?? first("buildings") ?? first("pointcloud");
  if (focus === undefined) home(view, groups, 0);
  const ground = focus && flyOnTerrain(focus, all, 0);
  const terrain = terrains.find((layer) => layer.visible) ?? terrains[0];
  const others = all.filter((layer) => layer.asset.kind !== "terrain");
  await Promise.all([ground, terrain?.show(), ...others.map((layer) => layer.show())]);
}

function home(view: View, groups: Group[], seconds: number): void {
  const assets = groups.flatMap((group) => group.assets);
  if (assets.length === 0) return;
  const [bounds, heights] = together(assets);
  const [west = 0, south = 0, east = 0, north = 0] = bounds;
  const area = ({ bounds: [w, s, e, n] }: Asset): number => (e - w) * (n - s);
  // The middle of assets on two continents is an ocean: then the largest asset is home.
  const scattered = east - west > widest_deg || north - south > widest_deg;
  const largest = assets.reduce((best, asset) => (area(asset) > area(best) ? asset : best));
  if (scattered) view.lookAt(largest.bounds, largest.heights, seconds);
  else view.lookAt(bounds, heights, seconds);
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

/** Views by name, each made when it is first wanted. */
class Views {
  private readonly made = new Map<ViewName, Promise<View>>();

  constructor(private readonly page: Page) {}

  get(name: ViewName): Promise<View> {
    let view = this.made.get(name);
    if (view === undefined) {
      view = name === "3d" ? this.globe() : this.map();
      this.made.set(name, view);
      view.catch(() => this.made.delete(name));
    }
    return view;
  }

  private async globe(): Promise<View> {
    const { globeView } = await import("./globe_view");
    const view = await globeView(main, this.page);
    portal.viewer = view.widget;
    return view;
  }

  private async map(): Promise<View> {
    const { mapView } = await import("./map_view");
    const view = await mapView(main, this.page);
    portal.map = view.map;
    return view;
  }
}

function asked(): ViewName {
  const name = new URLSearchParams(location.search).get("view");
  return viewNames.find((known) => known === name) ?? "3d";
}

function remember(name: ViewName): void {
  const url = new URL(location.href);
  if (name === "3d") url.searchParams.delete("view");
  else url.searchParams.set("view", name);
  history.replaceState(history.state, "", url);
}

async function start(): Promise<void> {
  setLanguage(currentLanguage());
  let groups: Group[] = [];
  let view: View;
  const views = new Views({
    layers,
    clicked: (x, y) => void pick(x, y),
    home: () => home(view, groups, 1.6),
    busy: () => [...layers.values()].some((layer) => layer.busy()),
  });
  try {
    view = await views.get(asked());
  } catch (error) {
    const notice = element("div", { class: "notice fatal", role: "alert" }, t("noWebgl"));
    onLanguage(() => notice.replaceChildren(t("noWebgl")));
    main.replaceChildren(notice);
    throw error;
  }
  const attributes = attributePanel(() => view.clear());
  const pick = async (x: number, y: number): Promise<Picked | undefined> => {
    const picked = await view.pick(x, y);
    attributes.show(picked);
    return picked;
  };
  let turn = 0;
  const setView = async (name: ViewName): Promise<void> => {
    const mine = (turn += 1);
    const next = await views.get(name);
    if (mine !== turn || next === view) return choice.tell(view.name);
    const place = view.place();
    view.clear();
    attributes.show(undefined);
    view.element.hidden = true;
    next.element.hidden = false;
    view = next;
    choice.tell(name);
    remember(name);
    if (place !== undefined) next.goTo(place);
    await Promise.all([...layers.values()].map((layer) => layer.enter(next)));
  };
  const choice = viewSwitch((name) => {
    void setView(name).catch((error: unknown) => {
      choice.tell(view.name);
      console.error(error);
    });
  });
  choice.tell(view.name);
  portal.settled = () => view.settled();
  portal.pick = pick;
  portal.view = () => view.name;
  portal.setView = setView;
  main.append(choice.element, attributes.element);
  groups = await catalogue();
  for (const asset of groups.flatMap((group) => group.assets)) layers.set(asset.id, new Layer(view, asset));
  portal.open = async (id) => {
    const layer = layers.get(id);
    if (layer === undefined) throw new RangeError(`no layer ${id}`);
    await Promise.all([flyOnTerrain(layer, layers.values()), layer.show()]);
  };
  main.append(
    element("div", { class: "legends" }, classLegend(layers.values()), legend(layers.values())),
  );
  if (layers.size === 0) {
    panel.showEmpty();
    return;
  }
  panel.showGroups(groups, layers);
  await openFirst(view, groups);
}

const early = (): never => {
  throw new Error("the portal is not ready yet: await cim.ready");
};
const portal: Portal = {
  viewer: undefined,
  map: undefined,
  layers,
  ready: Promise.resolve(),
  settled: early,
  pick: early,
  open: early,
  view: early,
  setView: early,
  setLanguage,
  language: currentLanguage,
};
window.cim = portal;
portal.ready = start();
