// Buttons over the map and the same on the keyboard: zoom, pan, north, tilt, home.

import { Cartesian2, Cartesian3, HeadingPitchRange, Math as CesiumMath, Matrix4 } from "cesium";
import { element, iconButton } from "./element";
import type { Globe } from "./globe";
import { onLanguage, t, type TextKey } from "./i18n";

/** The tool bar; `home` flies to all layers. */
export function mapTools(globe: Globe, home: () => void): HTMLElement {
  const { widget } = globe;
  const { camera, canvas, scene } = widget;

  const target = (): Cartesian3 | undefined => {
    const middle = new Cartesian2(canvas.clientWidth / 2, canvas.clientHeight / 2);
    const ray = camera.getPickRay(middle);
    return ray && scene.globe.pick(ray, scene);
  };
  const zoom = (factor: number): void => {
    const point = target();
    const range = point ? Cartesian3.distance(point, camera.positionWC) : camera.positionCartographic.height;
    if (factor > 1) camera.moveBackward(range * (factor - 1));
    else camera.moveForward(range * (1 - factor));
    globe.draw();
  };
  const orbit = (heading: number, pitch: number): void => {
    const point = target();
    if (point === undefined) return;
    const range = Cartesian3.distance(point, camera.positionWC);
    camera.lookAt(point, new HeadingPitchRange(heading, pitch, range));
    camera.lookAtTransform(Matrix4.IDENTITY);
    globe.draw();
  };
  const tilt = (): void => {
    const steep = camera.pitch < CesiumMath.toRadians(-70);
    orbit(camera.heading, CesiumMath.toRadians(steep ? -35 : -89.9));
  };
  const pan = (right: number, up: number): void => {
    const distance = camera.positionCartographic.height * 0.15;
    camera.moveRight(right * distance);
    const ahead = Cartesian3.cross(scene.ellipsoid.geodeticSurfaceNormal(camera.positionWC)!, camera.rightWC, new Cartesian3());
    camera.move(ahead, up * distance);
    globe.draw();
  };
  const keys: Record<string, () => void> = {
    "+": () => zoom(0.7),
    "=": () => zoom(0.7),
    "-": () => zoom(1.4),
    ArrowLeft: () => pan(-1, 0),
    ArrowRight: () => pan(1, 0),
    ArrowUp: () => pan(0, 1),
    ArrowDown: () => pan(0, -1),
    n: () => orbit(0, camera.pitch),
    t: tilt,
    h: home,
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  // A click focuses the globe too, but only keyboard users need to see where the focus is.
  canvas.addEventListener("pointerdown", () => (canvas.dataset["pointer"] = ""));
  canvas.addEventListener("blur", () => delete canvas.dataset["pointer"]);
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  const buttons: [HTMLButtonElement, TextKey][] = [
    [iconButton("plus", "", () => zoom(0.6)), "zoomIn"],
    [iconButton("minus", "", () => zoom(1.7)), "zoomOut"],
    [iconButton("north", "", () => orbit(0, camera.pitch)), "north"],
    [iconButton("tilt", "", tilt), "tilt"],
    [iconButton("home", "", home), "home"],
  ];
  const bar = element("div", { class: "map-tools", role: "toolbar" }, ...buttons.map(([button]) => button));
  const translate = (): void => {
    canvas.setAttribute("aria-label", t("globe"));
    bar.setAttribute("aria-label", t("tools"));
    for (const [button, key] of buttons) {
      button.title = t(key);
      button.setAttribute("aria-label", t(key));
    }
  };
  onLanguage(translate);
  translate();
  return bar;
}
