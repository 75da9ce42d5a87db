// The classes of the point clouds on the globe: names, colours, how many points, and switches.

import { element } from "./element";
import { currentLanguage, onLanguage, t } from "./i18n";
import { messageOf, type Layer } from "./layers";
import { classCounts, className } from "./point_columns";

/** The legend of whichever of `layers` are classified point clouds. */
export function classLegend(layers: Iterable<Layer>): HTMLElement {
  const box = element("section", { class: "class-legend", hidden: true });
  const clouds = [...layers].filter(({ asset }) => classCounts(asset).length > 0);
  let colours = new Map<number, string>();
  const draw = (): void => {
    const shown = clouds.filter((layer) => layer.state === "on");
    box.hidden = shown.length === 0;
    box.setAttribute("aria-label", t("classLegend"));
    // A switch that was just used keeps the focus although it is made again.
    const { activeElement } = document;
    const focused = activeElement !== null && box.contains(activeElement) ? activeElement.id : "";
    box.replaceChildren(...shown.flatMap((layer) => sectionOf(layer, colours)));
    if (focused !== "") document.getElementById(focused)?.focus();
  };
  const values = [...new Set(clouds.flatMap(({ asset }) => classCounts(asset).map(([value]) => value)))];
  let asked = false;
  const follow = (): void => {
    draw();
    if (asked || box.hidden) return;
    asked = true;
    // Cesium reads the style, and clouds are drawn by it alone.
    import("./point_style")
      .then(({ classColours }) => classColours(values))
      .then((found) => {
        colours = found;
        draw();
      })
      .catch((error: unknown) => {
        asked = false;
        box.append(element("p", { class: "layer-error", role: "alert" }, messageOf(error)));
      });
  };
  for (const layer of clouds) layer.addEventListener("change", follow);
  onLanguage(draw);
  return box;
}

function sectionOf(layer: Layer, colours: Map<number, string>): HTMLElement[] {
  const { asset, look } = layer;
  const byClass = look.colouring === "class";
  const rows = classCounts(asset).map(([value, count]) => {
    const toggle = element("input", {
      type: "checkbox",
      id: `class-${asset.id}-${value}`,
      "data-class": value,
      checked: !look.hidden.includes(value),
      onchange: () => {
        const others = layer.look.hidden.filter((each) => each !== value);
        layer.setLook({ hidden: toggle.checked ? others : [...others, value] });
      },
    });
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = byClass ? (colours.get(value) ?? "") : "";
    swatch.hidden = !byClass;
    const number = count.toLocaleString(currentLanguage() === "zh" ? "zh-CN" : "en");
    const label = element("label", { for: toggle.id }, swatch, `${value} ${className(asset, value)}`);
    return element("li", {}, toggle, label, element("output", {}, number));
  });
  return [
    element("h2", { title: asset.title }, `${t("classLegend")} · ${asset.title}`),
    element("ul", { "data-legend": asset.id }, ...rows),
  ];
}
