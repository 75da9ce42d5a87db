// The style of white models, `/styles/buildings.json`: a 3D Tiles style, and its legend.

import { getJson } from "./catalogue";

type Condition = [string, string];

export interface StyleJson {
  color?: string | { conditions: Condition[] };
  [key: string]: unknown;
}

export interface LegendEntry {
  color: string;
  /** Lowest value of the class in metres; undefined for what no class takes. */
  from: number | undefined;
}

let loaded: Promise<StyleJson> | undefined;

/** The style file, read once. */
export function buildingStyle(): Promise<StyleJson> {
  loaded ??= getJson<StyleJson>("styles/buildings.json").catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

/** The classes of the colour ramp, lowest first. */
export function legendOf(json: StyleJson): LegendEntry[] {
  if (typeof json.color !== "object") return [];
  const entries = json.color.conditions.flatMap(([when, then]): LegendEntry[] => {
    const color = /color\(\s*['"](.*?)['"]/.exec(then)?.[1];
    if (color === undefined) return [];
    const bound = />=?\s*(-?[\d.]+)/.exec(when)?.[1];
    if (bound === undefined && when !== "true") return [];
    return [{ color, from: bound === undefined ? undefined : Number(bound) }];
  });
  return entries.reverse();
}
