// What the globe and the map have in common: they draw assets, look somewhere, and tell what a
// click finds.

import type { Asset, Kind } from "./catalogue";
import type { Picked } from "./picked";
import type { PointLook } from "./point_look";

/** An asset in a view. */
export interface Drawing {
  setVisible(visible: boolean): void;
  setOpacity(opacity: number): void;
  /** Only of terrain: whether its hillshade lies on it, which `setOpacity` then is of. */
  setShaded?(shaded: boolean): void;
  /** Only of points. */
  setLook?(look: PointLook): void;
  /** Whether tiles for the present view are still on their way. */
  busy(): boolean;
  destroy(): void;
}

/** Tells the layer's row that something could not be loaded. */
export type Failed = (error: unknown) => void;

/** Where a view looks. */
export interface Place {
  /** Degrees of its middle. */
  longitude: number;
  latitude: number;
  /** Metres on the ground that a CSS pixel in the middle is wide. */
  resolution_m: number;
}

export const viewNames = ["3d", "2d"] as const;
export type ViewName = (typeof viewNames)[number];

export interface View {
  readonly name: ViewName;
  /** The picture with its tools and its status bar. */
  readonly element: HTMLElement;
  draws(kind: Kind): boolean;
  draw(asset: Asset, failed: Failed): Promise<Drawing>;
  /** Look at a box (degrees, metres), from `nearest_m` away or more. */
  lookAt(bounds: readonly number[], heights: readonly number[], seconds: number, nearest_m?: number): void;
  /** Undefined where it looks past the Earth. */
  place(): Place | undefined;
  goTo(place: Place): void;
  /** What is at a pixel (CSS pixels from the upper left corner), highlighted. */
  pick(x: number, y: number): Promise<Picked | undefined>;
  /** Take the highlight away. */
  clear(): void;
  /** Resolves when every tile of what it looks at is drawn. */
  settled(): Promise<void>;
}

/** What a view needs of the page around it. */
export interface Page {
  layers: ReadonlyMap<string, { asset: Asset; look: PointLook; busy(): boolean }>;
  /** A person clicked at a pixel. */
  clicked(x: number, y: number): void;
  home(): void;
  /** Whether a layer still loads. */
  busy(): boolean;
}
