// The switch between globe and map.

import { element } from "./element";
import { onLanguage, t } from "./i18n";
import { viewNames, type ViewName } from "./view";

export interface ViewSwitch {
  element: HTMLElement;
  tell(shown: ViewName): void;
}

/** The switch; `choose` runs when a person chooses a view. */
export function viewSwitch(choose: (name: ViewName) => void): ViewSwitch {
  const words = viewNames.map(() => element("span"));
  const inputs = viewNames.map((name) =>
    element("input", { type: "radio", name: "view", value: name, onchange: () => choose(name) }),
  );
  const box = element(
    "div",
    { class: "view-switch", role: "radiogroup" },
    ...inputs.map((input, index) => element("label", {}, input, words[index]!)),
  );
  const translate = (): void => {
    box.setAttribute("aria-label", t("views"));
    viewNames.forEach((name, index) => (words[index]!.textContent = t(`view_${name}`)));
  };
  onLanguage(translate);
  translate();
  return {
    element: box,
    tell: (shown) => inputs.forEach((input) => (input.checked = input.value === shown)),
  };
}
