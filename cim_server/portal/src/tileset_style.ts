// The style of white models at an opacity, as Cesium reads it.

import { Cesium3DTileStyle } from "cesium";
import type { StyleJson } from "./building_style";

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
