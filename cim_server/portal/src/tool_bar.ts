// A column of buttons over a picture.

import { element, iconButton, type IconName } from "./element";
import { onLanguage, t, type TextKey } from "./i18n";

/** The bar; each tool has an icon, a name and what it does. */
export function toolBar(tools: readonly [IconName, TextKey, () => void][]): HTMLElement {
  const buttons = tools.map(([icon, , act]) => iconButton(icon, "", act));
  const bar = element("div", { class: "map-tools", role: "toolbar" }, ...buttons);
  const translate = (): void => {
    bar.setAttribute("aria-label", t("tools"));
    buttons.forEach((button, index) => {
      const name = t(tools[index]![1]);
      button.title = name;
      button.setAttribute("aria-label", name);
    });
  };
  onLanguage(translate);
  translate();
  return bar;
}
