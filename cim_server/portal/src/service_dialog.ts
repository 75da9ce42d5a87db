// The dialog with an asset's addresses, each with a copy button, and code for three clients.

import type { Asset } from "./catalogue";
import { element, icon, iconButton } from "./element";
import { currentLanguage, t } from "./i18n";
import { addressesOf, clients, snippetOf, type Client } from "./snippets";

function copyButton(text: () => string): HTMLButtonElement {
  const word = element("span", {}, t("copy"));
  const button = element(
    "button",
    {
      type: "button",
      class: "small-button copy",
      onclick: () => {
        void copy(text()).then(() => {
          word.textContent = t("copied");
          button.classList.add("done");
          setTimeout(() => {
            word.textContent = t("copy");
            button.classList.remove("done");
          }, 1600);
        });
      },
    },
    icon("copy"),
    word,
  );
  return button;
}

/** Put `text` on the clipboard, also where the page is not served over HTTPS. */
async function copy(text: string): Promise<void> {
  if (window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = element("textarea", { class: "offscreen" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Open the dialog for `asset`. */
export function openServices(asset: Asset): void {
  const addresses = addressesOf(asset).map(({ label, url }) =>
    element(
      "div",
      { class: "address", "data-address": label },
      element("span", { class: "address-label" }, t(label)),
      element("input", { type: "text", readonly: true, value: url, "aria-label": t(label), onfocus: selectAll }),
      copyButton(() => url),
    ),
  );
  const code = element("pre", { tabindex: 0, role: "tabpanel", id: "snippet" });
  const offered = clients.filter((client) => snippetOf(asset, client, true) !== undefined);
  const tabs = offered.map((client) =>
    element(
      "button",
      { type: "button", role: "tab", "aria-controls": "snippet", onclick: () => choose(client) },
      client,
    ),
  );
  const choose = (client: Client): void => {
    code.textContent = snippetOf(asset, client, currentLanguage() === "zh") ?? "";
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(offered[index] === client));
      tab.tabIndex = offered[index] === client ? 0 : -1;
    });
  };
  const list = element("div", { class: "tabs", role: "tablist", "aria-label": t("snippet") }, ...tabs);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const index = tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    const next = (index + step + tabs.length) % tabs.length;
    choose(offered[next]!);
    tabs[next]!.focus();
  });
  const dialog = element(
    "dialog",
    { class: "services", "aria-label": `${t("services")} · ${asset.title}`, onclose: () => dialog.remove() },
    element(
      "header",
      {},
      element("div", {}, element("h2", {}, asset.title), element("p", { class: "subtitle" }, t("services"))),
      iconButton("close", t("close"), () => dialog.close()),
    ),
    ...addresses,
    element("h3", {}, t("snippet")),
    element("div", { class: "code-head" }, list, copyButton(() => code.textContent ?? "")),
    code,
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  choose(offered[0]!);
  document.body.append(dialog);
  dialog.showModal();
}

function selectAll(event: Event): void {
  (event.target as HTMLInputElement).select();
}
