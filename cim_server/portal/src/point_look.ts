// How a point cloud looks: what its colours say, which classes it shows, how large points are.

import type { Asset } from "./catalogue";

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
