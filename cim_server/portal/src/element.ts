// Makes DOM elements; text always goes in as text, never as markup, because names and
// attributes come from other people's files.

type Child = Node | string | null | undefined | false;
type Properties = Record<string, string | number | boolean | EventListener | null | undefined>;

/** An element `tag` with attributes, `on…` listeners and children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.filter((child): child is Node | string => !!child));
  return made;
}

const icons = {
  buildings: "M3 21V9l6-3v15M9 21V3l7 4v14M16 21V11l5 2v8M2 21h20",
  terrain: "M2 20 9 7l4 7 3-5 6 11z",
  imagery: "M3 5h18v14H3zM3 16l5-5 4 4 3-3 6 5M16 9h.01",
  vector: "M5 19 9 7l10-2-3 11zM5 19h.01M9 7h.01M19 5h.01M16 16h.01",
  divisions: "M4 6l6-2 5 2 5-2v14l-5 2-5-2-6 2zM10 4v14M15 6v14",
  pointcloud: "M5 18h.01M9 14h.01M13 17h.01M17 13h.01M7 9h.01M12 10h.01M16 7h.01M20 18h.01",
  fly: "M12 3v4M12 17v4M3 12h4M17 12h4M12 9a3 3 0 1 0 .01 0",
  link: "M10 14a4 4 0 0 0 6 0l4-4a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-4 4a4 4 0 0 0 6 6l1-1",
  more: "M6 9l6 6 6-6",
  search: "M11 4a7 7 0 1 0 .01 0M16.5 16.5 21 21",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  north: "M12 3l5 17-5-4-5 4z",
  tilt: "M4 17l5-10h6l5 10zM2 21h20",
  home: "M4 11l8-7 8 7v9h-5v-6H9v6H4z",
  close: "M6 6l12 12M18 6 6 18",
  panel: "M4 5h16v14H4zM10 5v14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
} as const;

export type IconName = keyof typeof icons;

/** A 20 px line icon, hidden from screen readers: the button around it carries the label. */
export function icon(name: IconName): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", icons[name]);
  svg.append(path);
  return svg;
}

/** A square button with an icon; `label` is its tooltip and its name for screen readers. */
export function iconButton(name: IconName, label: string, press: () => void): HTMLButtonElement {
  return element(
    "button",
    { type: "button", class: "icon-button", title: label, "aria-label": label, onclick: press },
    icon(name),
  );
}
