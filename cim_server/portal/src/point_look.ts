// How a point cloud looks: what its colours say, which classes it shows, how large points are.

import { Cesium3DTileStyle, Color, type Cesium3DTileFeature } from "cesium";
import type { StyleJson } from "./building_style";
import { getJson, type Asset } from "./catalogue";

export const colourings = ["rgb", "class"] as const;
/** What the colours of points say. */
export type Colouring = (typeof colourings)[number];

export interface PointLook {
  colouring: Colouring | undefined;
  /** Classes that are not drawn. */
  hidden: readonly number[];
  /** Of points, times the distance between them. */
  size: number;
  /** Whether edges of what stands out are darkened (eye-dome lighting). */
  edges: boolean;
}

/** What the points of `asset` can be coloured by, the first one by default. */
export function colouringsOf(asset: Asset): Colouring[] {
  const depth = asset.info["colour_depth"];
  const classed = asset.fields.some(({ id }) => id === "classification");
  return colourings.filter((each) => (each === "rgb" ? Number(depth ?? 0) > 0 : classed));
}

/** How a cloud looks before anyone chooses. */
export function firstLook(asset: Asset): PointLook {
  return { colouring: colouringsOf(asset)[0], hidden: [], size: 1, edges: false };
}

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
