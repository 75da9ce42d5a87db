// The bottom line of a view: a place, how near it is looked at, and whether tiles are on their way.

import { element } from "./element";
import { t } from "./i18n";

export interface StatusLine {
  element: HTMLElement;
  position: HTMLElement;
  camera: HTMLElement;
  tellWork(pending: boolean): void;
}

export function statusLine(): StatusLine {
  const position = element("span", { class: "position" });
  const camera = element("span", { class: "camera" });
  const work = element("span", { class: "work", role: "status" });
  const bar = element("footer", { class: "status" }, position, camera, work);
  return {
    element: bar,
    position,
    camera,
    tellWork(pending) {
      bar.classList.toggle("busy", pending);
      work.textContent = t(pending ? "tilesPending" : "ready");
    },
  };
}

/** A place in degrees as people read it; 10^-6 degree of latitude is 0.11 m. */
export function placeText(east: number, north: number): string {
  return (
    `${t("frame")}  ${Math.abs(east).toFixed(6)}°${east < 0 ? "W" : "E"}  ` +
    `${Math.abs(north).toFixed(6)}°${north < 0 ? "S" : "N"}`
  );
}
