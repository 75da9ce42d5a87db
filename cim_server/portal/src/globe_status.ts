// The bottom line of the globe: CGCS2000 longitude and latitude to a tenth of a metre, the ellipsoidal height
// of the terrain below the pointer, the camera's height, and whether tiles are on their way.

import {
  Cartesian2,
  Cartesian3,
  Cartographic,
  EllipsoidTerrainProvider,
  Math as CesiumMath,
  ScreenSpaceEventHandler,
  ScreenSpaceEventType,
} from "cesium";
import { groundAt, type Globe } from "./globe";
import { onLanguage, t } from "./i18n";
import { placeText, statusLine } from "./status_line";

/** Distance in metres up to which the terrain under the pointer is drawn finely enough to read. */
const farthest_m = 50_000;

/** The bar; `busy` tells whether a layer still loads. */
export function globeStatus(globe: Globe, busy: () => boolean): HTMLElement {
  const { widget } = globe;
  const { element: bar, position, camera, tellWork: tell } = statusLine();
  let pixel: Cartesian2 | undefined;

  // From afar the globe is drawn with triangles of many kilometres, and without terrain there is
  // no height to tell: no number rather than a wrong one.
  const height = (ground: Cartographic): string => {
    const away = Cartesian3.distance(Cartographic.toCartesian(ground), widget.camera.positionWC);
    const flat = widget.scene.terrainProvider instanceof EllipsoidTerrainProvider;
    return flat || away > farthest_m ? "—" : `${ground.height.toFixed(1)} m`;
  };
  const tellPosition = (): void => {
    const ground = pixel && groundAt(widget, pixel);
    if (ground === undefined) {
      position.textContent = t("offGlobe");
      return;
    }
    const east = CesiumMath.toDegrees(ground.longitude);
    const north = CesiumMath.toDegrees(ground.latitude);
    position.textContent = `${placeText(east, north)}  ${t("ellipsoidalHeight")} ${height(ground)}`;
  };
  const tellCamera = (): void => {
    const height = widget.camera.positionCartographic.height;
    const shown = height >= 10_000 ? `${(height / 1000).toFixed(1)} km` : `${height.toFixed(0)} m`;
    camera.textContent = `${t("cameraHeight")} ${shown}`;
  };
  const tellWork = (): void => tell(busy() || !widget.scene.globe.tilesLoaded);
  let asked = false;
  const handler = new ScreenSpaceEventHandler(widget.canvas);
  handler.setInputAction((event: ScreenSpaceEventHandler.MotionEvent) => {
    pixel = Cartesian2.clone(event.endPosition, pixel);
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      tellPosition();
    });
  }, ScreenSpaceEventType.MOUSE_MOVE);
  widget.scene.postRender.addEventListener(() => {
    tellCamera();
    tellWork();
  });
  onLanguage(() => {
    tellPosition();
    tellCamera();
    tellWork();
  });
  tellPosition();
  tellCamera();
  return bar;
}
