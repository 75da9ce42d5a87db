// Buttons over the globe and the same on the keyboard: zoom, pan, north, tilt, home.

import { Cartesian2, Cartesian3, HeadingPitchRange, Math as CesiumMath, Matrix4 } from "cesium";
import type { Globe } from "./globe";
import { onLanguage, t } from "./i18n";
import { toolBar } from "./tool_bar";

/** The tool bar; `home` flies to all layers. */
export function globeTools(globe: Globe, home: () => void): HTMLElement {
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
  const name = (): void => canvas.setAttribute("aria-label", t("globe"));
  onLanguage(name);
  name();
  return toolBar([
    ["plus", "zoomIn", () => zoom(0.6)],
    ["minus", "zoomOut", () => zoom(1.7)],
    ["north", "north", () => orbit(0, camera.pitch)],
    ["tilt", "tilt", tilt],
    ["home", "home", home],
  ]);
}
