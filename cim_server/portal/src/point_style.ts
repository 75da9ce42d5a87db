// The style of point clouds, `/styles/pointcloud.json`, as Cesium reads it.

import { Cesium3DTileStyle, Color, type Cesium3DTileFeature } from "cesium";
import type { StyleJson } from "./building_style";
import { getJson } from "./catalogue";
import type { PointLook } from "./point_look";

let loaded: Promise<StyleJson> | undefined;

function classStyle(): Promise<StyleJson> {
  loaded ??= getJson<StyleJson>("styles/pointcloud.json").catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

/** The style of a look; undefined where points keep their colours and all are shown. */
export async function styleOf(look: PointLook): Promise<Cesium3DTileStyle | undefined> {
  const style: Record<string, unknown> = {};
  if (look.colouring === "class") style["color"] = (await classStyle()).color;
  if (look.hidden.length > 0) {
    const others = look.hidden.map((value) => `\${classification} !== ${value.toFixed(1)}`);
    // The style is asked of whole tiles too, which have no class.
    style["show"] = `\${classification} === undefined || (${others.join(" && ")})`;
  }
  return Object.keys(style).length > 0 ? new Cesium3DTileStyle(style) : undefined;
}

/** The colours that the style gives to classes, as CSS has them. */
export async function classColours(values: readonly number[]): Promise<Map<number, string>> {
  const style = new Cesium3DTileStyle({ color: (await classStyle()).color });
  return new Map(
    values.map((value) => {
      const feature = { getPropertyInherited: () => value } as unknown as Cesium3DTileFeature;
      const colour = style.color?.evaluateColor(feature, new Color()) as Color | undefined;
      return [value, (colour ?? Color.WHITE).toCssHexString()];
    }),
  );
}
