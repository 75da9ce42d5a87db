// The right panel: what stands under the click, property by property, under its own name.

import { element, iconButton } from "./element";
import { onLanguage, t } from "./i18n";
import type { Attribute, Picked } from "./picked";

export interface AttributePanel {
  element: HTMLElement;
  show(picked: Picked | undefined): void;
}

function written(value: unknown): string {
  if (value === null || value === undefined || value === "") return t("noValue");
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toFixed(6)));
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

/** Filled properties come first, ours after the source's own, empty ones last. */
function place({ id, value }: Attribute): number {
  const empty = value === null || value === undefined || value === "";
  return (empty ? 2 : 0) + (id.startsWith("cim_") ? 1 : 0);
}

/** The panel; `closed` runs when the person closes it. */
export function attributePanel(closed: () => void): AttributePanel {
  const title = element("h2");
  const from = element("p", { class: "subtitle" });
  const trouble = element("p", { class: "layer-error", role: "alert" });
  const body = element("tbody");
  const close = iconButton("close", "", () => {
    panel.hidden = true;
    closed();
  });
  const panel = element(
    "section",
    { class: "attributes", hidden: true, "aria-live": "polite" },
    element("header", {}, element("div", {}, title, from), close),
    trouble,
    element("div", { class: "table" }, element("table", {}, body)),
  );
  let last: Picked | undefined;
  const show = (picked: Picked | undefined): void => {
    last = picked;
    panel.hidden = picked === undefined;
    panel.setAttribute("aria-label", t("attributes"));
    close.title = t("close");
    close.setAttribute("aria-label", t("close"));
    if (picked === undefined) return;
    title.textContent = picked.title || t("unnamed");
    from.textContent = picked.asset
      ? `${t(`kind_${picked.asset.kind}`)} · ${picked.asset.title}`
      : t("attributes");
    trouble.hidden = picked.trouble === undefined;
    trouble.textContent = `${t("onlyTile")}：${picked.trouble ?? ""}`;
    const sorted = [...picked.attributes].sort((a, b) => place(a) - place(b));
    body.replaceChildren(
      ...sorted.map(({ id, name, value }) =>
        element(
          "tr",
          { "data-property": id },
          element("th", { scope: "row", title: id }, name),
          element("td", { class: value === null || value === undefined ? "empty" : "" }, written(value)),
        ),
      ),
    );
  };
  onLanguage(() => show(last));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) close.click();
  });
  return { element: panel, show };
}
