// The left panel: title, language switch, search box and the layers by collection.

import type { Group } from "./catalogue";
import { element, icon, iconButton } from "./element";
import { currentLanguage, onLanguage, setLanguage, t } from "./i18n";
import { layerRow, type RowActions } from "./layer_row";
import type { Layer } from "./layers";

export interface LayerPanel {
  element: HTMLElement;
  showGroups(groups: Group[], layers: Map<string, Layer>): void;
  showLoading(): void;
  showEmpty(): void;
  showError(message: string, retry: () => void): void;
}

/** Whether every word of `query` occurs in the row's text. */
export function matches(haystack: string, query: string): boolean {
  const text = haystack.toLocaleLowerCase();
  return query
    .toLocaleLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** The panel; rows act through `actions`. */
export function layerPanel(actions: RowActions): LayerPanel {
  const heading = element("h1");
  const subtitle = element("p", { class: "subtitle" });
  const language = element("button", {
    type: "button",
    class: "language",
    onclick: () => setLanguage(currentLanguage() === "zh" ? "en" : "zh"),
  });
  const search = element("input", { type: "search", id: "search", oninput: () => filter() });
  const content = element("div", { class: "layer-list", "aria-live": "polite" });
  const nothing = element("p", { class: "hint", hidden: true });
  const collapse = iconButton("panel", "", () => fold(panel.dataset["folded"] === undefined));
  collapse.classList.add("collapse");
  const panel = element(
    "aside",
    { class: "panel", id: "layer-panel" },
    element("header", {}, element("div", {}, heading, subtitle), language),
    element("div", { class: "search", role: "search" }, icon("search"), search),
    content,
    nothing,
  );
  const wrapper = element("div", { class: "panel-wrapper" }, panel, collapse);
  let rows: { section: HTMLElement; row: HTMLElement; text: string }[] = [];
  let refresh = (): void => undefined;

  const fold = (folded: boolean): void => {
    if (folded) panel.dataset["folded"] = "";
    else delete panel.dataset["folded"];
    panel.inert = folded;
    wrapper.classList.toggle("folded", folded);
    const label = t(folded ? "showPanel" : "hidePanel");
    collapse.title = label;
    collapse.setAttribute("aria-label", label);
    collapse.setAttribute("aria-expanded", String(!folded));
  };
  const filter = (): void => {
    const query = search.value.trim();
    const shown = new Set<HTMLElement>();
    for (const { section, row, text } of rows) {
      row.hidden = query !== "" && !matches(text, query);
      if (!row.hidden) shown.add(section);
    }
    for (const { section } of rows) section.hidden = !shown.has(section);
    nothing.hidden = rows.length === 0 || shown.size > 0;
  };
  const translate = (): void => {
    heading.textContent = t("title");
    subtitle.textContent = t("subtitle");
    language.textContent = t("language");
    language.setAttribute("aria-label", t("languageLabel"));
    search.placeholder = t("search");
    search.setAttribute("aria-label", t("search"));
    nothing.textContent = t("noMatch");
    panel.setAttribute("aria-label", t("layers"));
    fold(panel.dataset["folded"] !== undefined);
    refresh();
  };
  const note = (make: () => (Node | string)[]): void => {
    rows = [];
    refresh = () => content.replaceChildren(element("div", { class: "notice" }, ...make()));
    refresh();
  };
  onLanguage(translate);
  translate();
  if (window.matchMedia("(max-width: 720px)").matches) fold(true);

  return {
    element: wrapper,
    showGroups(groups, layers) {
      rows = [];
      const names: (() => void)[] = [];
      refresh = () => names.forEach((tell) => tell());
      const sections = groups.map((group) => {
        const list = element("ul");
        const name = element("span");
        const heading = element(
          "h2",
          {},
          name,
          element("span", { class: "count" }, String(group.assets.length)),
        );
        names.push(() => (name.textContent = group.titles[currentLanguage() === "zh" ? 0 : 1]));
        const section = element(
          "section",
          { "data-collection": group.id },
          heading,
          list,
        );
        for (const asset of group.assets) {
          const layer = layers.get(asset.id);
          if (layer === undefined) continue;
          const row = layerRow(layer, actions);
          list.append(row);
          const category = String(asset.properties["cim:category"] ?? "");
          rows.push({ section, row, text: [asset.title, asset.id, ...group.titles, category, asset.kind].join(" ") });
        }
        return section;
      });
      content.replaceChildren(...sections);
      refresh();
      filter();
    },
    showLoading: () => note(() => [element("span", { class: "spinner" }), t("loading")]),
    showEmpty: () =>
      note(() => [
        element("h2", {}, t("emptyTitle")),
        element("p", {}, t("emptyText")),
        element("pre", {}, "cim ingest buildings.shp --id buildings"),
      ]),
    showError: (message, retry) =>
      note(() => [
        element("h2", {}, t("unreachable")),
        element("p", { class: "layer-error", role: "alert" }, message),
        element("button", { type: "button", class: "button", onclick: retry }, t("retry")),
      ]),
  };
}
