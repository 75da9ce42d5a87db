// The globe as a view: CesiumJS with its tools, its status bar, and clicks.

import "cesium/Build/Cesium/Widgets/CesiumWidget/CesiumWidget.css";
import {
  Cartesian2,
  Cartesian3,
  Cartographic,
  HeadingPitchRange,
  Math as CesiumMath,
  Matrix4,
  ScreenSpaceEventHandler,
  ScreenSpaceEventType,
  type Cesium3DTileset,
  type CesiumWidget,
} from "cesium";
import { drawings } from "./drawings";
import { element } from "./element";
import { makeGlobe, metresPerPixel, type Globe } from "./globe";
import { globeStatus } from "./globe_status";
import { globeTools } from "./globe_tools";
import { Picker, type Owner } from "./picking";
import type { Page, Place, View } from "./view";

export interface GlobeView extends View {
  widget: CesiumWidget;
}

function ownerOf(globe: Globe, page: Page): (tileset: Cesium3DTileset) => Owner | undefined {
  return (tileset) => {
    const url = new URL(tileset.resource.url, document.baseURI).pathname;
    const assets = [...page.layers.values()];
    const owner = assets.find(({ asset }) => new URL(asset.service).pathname === url);
    globe.draw();
    return owner;
  };
}

/** The place in the middle, as far as the ground is seen there. */
function placeOf({ widget }: Globe): Place | undefined {
  const { camera, canvas, scene } = widget;
  const ray = camera.getPickRay(new Cartesian2(canvas.clientWidth / 2, canvas.clientHeight / 2));
  const point = ray && scene.globe.pick(ray, scene);
  if (point === undefined) return undefined;
  const { longitude, latitude } = Cartographic.fromCartesian(point);
  return {
    longitude: CesiumMath.toDegrees(longitude),
    latitude: CesiumMath.toDegrees(latitude),
    resolution_m: metresPerPixel(widget, Cartesian3.distance(point, camera.positionWC)),
  };
}

function goTo(globe: Globe, { longitude, latitude, resolution_m }: Place): void {
  const { camera, scene } = globe.widget;
  const height = scene.globe.getHeight(Cartographic.fromDegrees(longitude, latitude)) ?? 0;
  const range = resolution_m / metresPerPixel(globe.widget, 1);
  const steep = CesiumMath.toRadians(-89.9);
  camera.lookAt(
    Cartesian3.fromDegrees(longitude, latitude, height),
    new HeadingPitchRange(0, steep, range),
  );
  camera.lookAtTransform(Matrix4.IDENTITY);
  globe.draw();
}

async function settled(globe: Globe, page: Page): Promise<void> {
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
    quiet = !scene.globe.tilesLoaded || page.busy() ? 0 : quiet + 1;
  }
}

/** Make the globe in `parent`; it needs its size from there. */
export async function globeView(parent: HTMLElement, page: Page): Promise<GlobeView> {
  const box = element("div", { class: "globe" });
  parent.prepend(box);
  let globe: Globe;
  try {
    globe = await makeGlobe(box);
  } catch (error) {
    box.remove();
    throw error;
  }
  const { widget } = globe;
  const picker = new Picker(globe, ownerOf(globe, page));
  const handler = new ScreenSpaceEventHandler(widget.canvas);
  handler.setInputAction(({ position }: ScreenSpaceEventHandler.PositionedEvent) => {
    widget.canvas.focus();
    page.clicked(position.x, position.y);
  }, ScreenSpaceEventType.LEFT_CLICK);
  box.append(
    globeTools(globe, () => page.home()),
    globeStatus(globe, () => page.busy()),
  );
  return {
    name: "3d",
    element: box,
    widget,
    draws: () => true,
    draw: (asset, failed) => drawings[asset.kind](globe, asset, failed),
    lookAt: (bounds, heights, seconds, nearest_m) =>
      globe.lookAt(bounds, heights, seconds, nearest_m),
    place: () => placeOf(globe),
    goTo: (place) => goTo(globe, place),
    pick: (x, y) => picker.pick(new Cartesian2(x, y)),
    clear: () => picker.clear(),
    settled: () => settled(globe, page),
  };
}
