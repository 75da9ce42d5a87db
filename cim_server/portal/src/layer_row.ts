// One row of the layer list: switch, title, fly-to, service addresses, and details on demand.

import type { Asset } from "./catalogue";
import { element, icon, iconButton } from "./element";
import { onLanguage, t, currentLanguage, type TextKey } from "./i18n";
import type { Layer } from "./layers";
import { flyOnTerrain, showOnly } from "./layers";
import { colouringsOf, type Colouring } from "./point_look";

/** What a row asks of the page. */
export interface RowActions {
  layers(): Iterable<Layer>;
  openServices(asset: Asset): void;
}

function number(value: unknown): string | undefined {
  return typeof value === "number" ? value.toLocaleString() : undefined;
}

function quality(value: unknown): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const words = Object.entries(value).map(([severity, count]) => `${severity} ${String(count)}`);
  return words.length > 0 ? words.join(" · ") : undefined;
}

function facts(asset: Asset): [TextKey, string | undefined][] {
  const { properties, info, bounds } = asset;
  const published = properties["created"] ?? properties["updated"] ?? properties["datetime"];
  const levels = [info["min_level"], info["max_level"]];
  const said = (key: string): string | undefined =>
    properties[key] === undefined || properties[key] === null || properties[key] === ""
      ? undefined
      : String(properties[key]);
  return [
    ["id", asset.id],
    ["kind", t(`kind_${asset.kind}`)],
    ["level", said("cim:level")],
    ["category", said("cim:category")],
    ["version", asset.version || undefined],
    ["features", number(info["features"])],
    ["levels", levels.every((level) => typeof level === "number") ? levels.join(" – ") : undefined],
    ["datum", said("cim:vertical_datum")],
    ["quality", quality(properties["cim:quality"])],
    ["extent", bounds.map((degrees) => degrees.toFixed(4)).join(", ")],
    ["updated", typeof published === "string" ? new Date(published).toLocaleString(currentLanguage() === "zh" ? "zh-CN" : "en") : undefined],
    ["attribution", said("attribution") ?? said("cim:attribution")],
    ["licence", said("license") ?? said("cim:licence")],
  ];
}

/** What can be changed of how points look. */
function pointControls(layer: Layer): HTMLElement[] {
  const { look, asset } = layer;
  const choices = colouringsOf(asset);
  const colours = element(
    "select",
    { onchange: () => layer.setLook({ colouring: colours.value as Colouring }) },
    ...choices.map((each) =>
      element("option", { value: each, selected: each === look.colouring }, t(`colouring_${each}`)),
    ),
  );
  const size = element("input", {
    type: "range",
    min: 50,
    max: 400,
    step: 10,
    value: Math.round(100 * look.size),
    "data-option": "point-size",
    oninput: () => {
      layer.setLook({ size: Number(size.value) / 100 });
      shown.textContent = `${size.value}%`;
    },
  });
  const shown = element("output", {}, `${size.value}%`);
  const edges = element("input", {
    type: "checkbox",
    class: "switch",
    role: "switch",
    checked: look.edges,
    "data-option": "point-edges",
    onchange: () => layer.setLook({ edges: edges.checked }),
  });
  const row = (key: TextKey, ...parts: Node[]): HTMLElement =>
    element("label", { class: "slider" }, element("span", {}, t(key)), ...parts);
  return [
    ...(choices.length > 1 ? [row("colouring", colours)] : []),
    row("pointSize", size, shown),
    row("pointEdges", edges),
  ];
}

function detailsOf(layer: Layer): HTMLElement {
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 100,
    value: Math.round(layer.opacity * 100),
    "aria-label": t("opacity"),
    oninput: () => {
      layer.setOpacity(Number(slider.value) / 100);
      shown.textContent = `${slider.value}%`;
    },
  });
  const shown = element("output", {}, `${Math.round(layer.opacity * 100)}%`);
  const opacity = element("label", { class: "slider" }, element("span", {}, t("opacity")), slider, shown);
  const terrain = layer.asset.kind === "terrain";
  // The opacity of a terrain is that of its hillshade.
  opacity.hidden = terrain && !layer.shaded;
  const shade = element("input", {
    type: "checkbox",
    class: "switch",
    role: "switch",
    checked: layer.shaded,
    "data-option": "hillshade",
    onchange: () => {
      layer.setShaded(shade.checked);
      opacity.hidden = !shade.checked;
    },
  });
  const list = element("dl", { class: "facts" });
  const description = layer.asset.properties["description"];
  for (const [key, value] of facts(layer.asset)) {
    if (value !== undefined) list.append(element("dt", {}, t(key)), element("dd", {}, value));
  }
  return element(
    "div",
    { class: "details" },
    terrain && element("label", { class: "slider" }, element("span", {}, t("hillshade")), shade),
    ...(layer.asset.kind === "pointcloud" ? pointControls(layer) : [opacity]),
    typeof description === "string" && element("p", { class: "description" }, description),
    list,
    element("a", { href: layer.asset.stac, target: "_blank", rel: "noopener" }, t("stacItem")),
  );
}

/** The row of `layer`; it follows the layer's state and the language. */
export function layerRow(layer: Layer, actions: RowActions): HTMLLIElement {
  const { asset } = layer;
  const terrain = asset.kind === "terrain";
  const toggle = element("input", {
    type: terrain ? "radio" : "checkbox",
    name: terrain ? "terrain" : undefined,
    class: terrain ? "radio" : "switch",
    role: terrain ? undefined : "switch",
    id: `layer-${asset.id}`,
    onchange: () => {
      if (toggle.checked) void showOnly(layer, terrain ? actions.layers() : []);
      else layer.hide();
    },
  });
  const title = element("label", { class: "layer-title", for: `layer-${asset.id}`, title: asset.title });
  const fly = iconButton("fly", "", () => void flyOnTerrain(layer, actions.layers()));
  const link = iconButton("link", "", () => actions.openServices(asset));
  const more = iconButton("more", "", () => unfold(!unfolded));
  more.classList.add("more");
  const trouble = element("p", { class: "layer-error", role: "alert", hidden: true });
  const retry = element("button", {
    type: "button",
    class: "small-button",
    onclick: () => void layer.show(),
  });
  const body = element("div", { class: "layer-body" });
  const row = element(
    "li",
    { class: `layer kind-${asset.kind}`, "data-layer": asset.id },
    element("div", { class: "layer-head" }, toggle, icon(asset.kind), title, fly, link, more),
    trouble,
    body,
  );
  let unfolded = false;
  const unfold = (open: boolean): void => {
    unfolded = open;
    more.setAttribute("aria-expanded", String(open));
    row.classList.toggle("unfolded", open);
    body.replaceChildren(...(open ? [detailsOf(layer)] : []));
  };
  const follow = (): void => {
    toggle.checked = layer.visible;
    toggle.disabled = !layer.drawable;
    row.classList.toggle("absent", toggle.disabled);
    title.title = toggle.disabled ? t("only3d") : asset.title;
    row.dataset["state"] = layer.state;
    row.toggleAttribute("aria-busy", layer.state === "loading");
    trouble.hidden = layer.state !== "failed";
    trouble.replaceChildren(`${t("layerFailed")}：${layer.error} `, retry);
  };
  const translate = (): void => {
    title.textContent = asset.title;
    for (const [button, key] of [
      [fly, "flyTo"],
      [link, "services"],
      [more, "details"],
    ] as const) {
      button.title = t(key);
      button.setAttribute("aria-label", `${t(key)} · ${asset.title}`);
    }
    retry.textContent = t("retry");
    unfold(unfolded);
    follow();
  };
  layer.addEventListener("change", follow);
  onLanguage(translate);
  translate();
  return row;
}
