// The colours of the building heights, shown while a white model is.

import { buildingStyle, legendOf, type LegendEntry } from "./building_style";
import { element } from "./element";
import { onLanguage, t } from "./i18n";
import type { Layer } from "./layers";

/** The legend for whichever of `layers` are white models. */
export function legend(layers: Iterable<Layer>): HTMLElement {
  const box = element("section", { class: "legend", hidden: true });
  const buildings = [...layers].filter((layer) => layer.asset.kind === "buildings");
  let entries: LegendEntry[] = [];
  const draw = (): void => {
    box.hidden = entries.length === 0 || !buildings.some((layer) => layer.state === "on");
    box.setAttribute("aria-label", t("legend"));
    box.replaceChildren(
      element("h2", {}, t("legend")),
      element(
        "ul",
        {},
        ...entries.map(({ color, from }, index) => {
          const next = entries[index + 1]?.from;
          const swatch = element("span", { class: "swatch" });
          swatch.style.background = color;
          const low = from ?? (index === 0 ? 0 : undefined);
          const range =
            low === undefined ? t("legendOther") : next === undefined ? `≥ ${low}` : `${low} – ${next}`;
          return element("li", {}, swatch, range);
        }),
      ),
    );
  };
  for (const layer of buildings) {
    layer.addEventListener("change", () => {
      if (layer.state !== "on" || entries.length > 0) return draw();
      // A style that cannot be read fails the layer itself, which says so in its row.
      void buildingStyle().then((style) => {
        entries = legendOf(style);
        draw();
      });
    });
  }
  onLanguage(draw);
  return box;
}
