// How vector layers look: one symbol per theme, chosen from the asset's kind and collection.

import type { Asset } from "./catalogue";
import { ranks } from "./globe";

/** Colours are CSS colours, widths and sizes pixels of a 512 px tile. */
export interface Symbol {
  fill?: string;
  line: string;
  casing?: string;
  width: number;
  point: number;
  rank: number;
  label: { color: string; size: number };
}

const themes: [RegExp, Symbol][] = [
  [
    /water|river|lake|hydro|水/i,
    {
      fill: "rgba(64, 156, 222, 0.62)",
      line: "#4aa8e8",
      width: 2.2,
      point: 4,
      rank: ranks.areas,
      label: { color: "#a9dcff", size: 14 },
    },
  ],
  [
    /road|street|rail|transport|路|交通/i,
    {
      line: "#ffd9a0",
      casing: "rgba(70, 45, 15, 0.75)",
      width: 2.6,
      point: 4,
      rank: ranks.lines,
      label: { color: "#ffe3bd", size: 13 },
    },
  ],
  [
    /green|park|landuse|vegetation|绿|林|用地/i,
    {
      fill: "rgba(96, 178, 104, 0.45)",
      line: "rgba(120, 200, 124, 0.8)",
      width: 1.4,
      point: 4,
      rank: ranks.areas,
      label: { color: "#c9f2c4", size: 13 },
    },
  ],
  [
    /poi|place|point|兴趣|地名/i,
    {
      fill: "rgba(255, 122, 150, 0.3)",
      line: "#ff7a96",
      width: 1.5,
      point: 4.5,
      rank: ranks.points,
      label: { color: "#ffe1e8", size: 13 },
    },
  ],
];

const divisions: Symbol = {
  fill: "rgba(255, 214, 102, 0.05)",
  line: "#ffd666",
  casing: "rgba(30, 20, 0, 0.55)",
  width: 2.4,
  point: 5,
  rank: ranks.divisions,
  label: { color: "#fff1c2", size: 17 },
};

const other: Symbol = {
  fill: "rgba(180, 140, 255, 0.25)",
  line: "#b79bff",
  width: 2,
  point: 5,
  rank: ranks.lines,
  label: { color: "#e6dcff", size: 13 },
};

/** The symbol of a vector or divisions asset. */
export function symbolOf(asset: Asset): Symbol {
  if (asset.kind === "divisions") return divisions;
  const words = `${asset.id} ${asset.collection} ${String(asset.properties["cim:category"] ?? "")}`;
  return themes.find(([theme]) => theme.test(words))?.[1] ?? other;
}
