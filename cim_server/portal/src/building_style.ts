// The style of white models, `/styles/buildings.json`: a Cesium 3D Tiles style, its legend, and
// the same style at another opacity.

import { Cesium3DTileStyle } from "cesium";
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

function translucent(expression: string, opacity: number): string {
  return expression.replace(
    /color\(\s*(['"])(.*?)\1\s*\)/g,
    (_, quote: string, color: string) => `color(${quote}${color}${quote}, ${opacity.toFixed(2)})`,
  );
}

/** `json` as Cesium reads it, its colours at `opacity` (0 to 1). */
export function styleAt(json: StyleJson, opacity: number): Cesium3DTileStyle {
  const { color } = json;
  const faded =
    opacity >= 1 || color === undefined
      ? color
      : typeof color === "string"
        ? translucent(color, opacity)
        : {
            conditions: color.conditions.map(([when, then]) => [when, translucent(then, opacity)]),
          };
  const style: Record<string, unknown> = { color: faded ?? `color('white', ${opacity})` };
  for (const key of ["show", "defines"]) if (json[key] !== undefined) style[key] = json[key];
  return new Cesium3DTileStyle(style);
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
