// The bottom line of the map: CGCS2000 longitude and latitude under the pointer, and the zoom.

import type { Map as LibreMap, MapMouseEvent } from "maplibre-gl";
import { onLanguage, t } from "./i18n";
import { placeText, statusLine } from "./status_line";

/** The bar; `busy` tells whether a layer still loads. */
export function mapStatus(map: LibreMap, busy: () => boolean): HTMLElement {
  const { element: bar, position, camera, tellWork } = statusLine();
  let place: { lng: number; lat: number } | undefined;
  const tell = (): void => {
    position.textContent = place === undefined ? t("offMap") : placeText(place.lng, place.lat);
    camera.textContent = `${t("zoom")} ${map.getZoom().toFixed(1)}`;
    tellWork(busy() || !map.areTilesLoaded());
  };
  map.on("mousemove", ({ lngLat }: MapMouseEvent) => {
    place = lngLat.wrap();
    tell();
  });
  map.on("render", tell);
  map.on("idle", tell);
  onLanguage(tell);
  tell();
  return bar;
}
