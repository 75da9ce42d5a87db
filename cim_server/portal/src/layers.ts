// The layers a person switches on and off: an asset, its drawing once it is needed, and its state.

import { drawings, type Drawing } from "./drawings";
import { firstLook, type PointLook } from "./point_look";
import type { Asset } from "./catalogue";
import type { Globe } from "./globe";

export type LayerState = "off" | "loading" | "on" | "failed";

/** One layer; `change` fires whenever its state, opacity or error does. */
export class Layer extends EventTarget {
  state: LayerState = "off";
  error = "";
  opacity = 1;
  private drawing: Drawing | undefined;
  private wanted = false;
  private looks: PointLook | undefined;
  private shade = false;

  constructor(
    private readonly globe: Globe,
    readonly asset: Asset,
  ) {
    super();
  }

  /** Whether the layer is switched on, drawn or not. */
  get visible(): boolean {
    return this.wanted;
  }

  /** Draw the layer; resolves when it is on the globe or its failure is shown. */
  async show(): Promise<void> {
    if (this.wanted && this.state !== "failed") return;
    this.wanted = true;
    if (this.drawing !== undefined) {
      this.drawing.setVisible(true);
      this.become("on");
      return;
    }
    this.become("loading");
    try {
      const drawing = await drawings[this.asset.kind](this.globe, this.asset, (error) => this.fail(error));
      this.drawing = drawing;
      if (this.opacity < 1) drawing.setOpacity(this.opacity);
      if (this.shade) drawing.setShaded?.(true);
      if (this.looks !== undefined) drawing.setLook?.(this.looks);
      drawing.setVisible(this.wanted);
      this.become(this.wanted ? "on" : "off");
    } catch (error) {
      this.fail(error);
    }
  }

  hide(): void {
    this.wanted = false;
    this.drawing?.setVisible(false);
    if (this.state !== "loading") this.become("off");
  }

  /** `opacity` from 0 to 1. */
  setOpacity(opacity: number): void {
    this.opacity = opacity;
    this.drawing?.setOpacity(opacity);
    this.dispatchEvent(new Event("change"));
  }

  /** Whether the hillshade of a terrain lies on it. */
  get shaded(): boolean {
    return this.shade;
  }

  setShaded(shaded: boolean): void {
    this.shade = shaded;
    this.drawing?.setShaded?.(shaded);
    this.dispatchEvent(new Event("change"));
  }

  /** How its points look. */
  get look(): PointLook {
    return this.looks ?? firstLook(this.asset);
  }

  /** Change some of how its points look. */
  setLook(change: Partial<PointLook>): void {
    this.looks = { ...this.look, ...change };
    this.drawing?.setLook?.(this.looks);
    this.dispatchEvent(new Event("change"));
  }

  flyTo(seconds = 1.6): void {
    const { bounds, heights, kind } = this.asset;
    // A scan of one room or statue is a cloud too.
    this.globe.lookAt(bounds, heights, seconds, kind === "pointcloud" ? 40 : undefined);
  }

  busy(): boolean {
    return this.state === "loading" || (this.state === "on" && (this.drawing?.busy() ?? false));
  }

  private become(state: LayerState): void {
    this.state = state;
    if (state !== "failed") this.error = "";
    this.dispatchEvent(new Event("change"));
  }

  private fail(error: unknown): void {
    this.error = messageOf(error);
    this.become("failed");
  }
}

/** What went wrong, in the words of whoever reported it. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
  return String(error);
}

/** Fly to `layer`, on the finest terrain that lies under it. */
export async function flyOnTerrain(layer: Layer, layers: Iterable<Layer>, seconds = 1.6): Promise<void> {
  const [west, south, east, north] = layer.asset.bounds;
  const [x, y] = [(west + east) / 2, (south + north) / 2];
  const area = ({ asset: { bounds } }: Layer): number => (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]);
  const all = [...layers];
  const under = all
    .filter(({ asset: { kind, bounds: [left, bottom, right, top] } }) => {
      return kind === "terrain" && left <= x && x <= right && bottom <= y && y <= top;
    })
    .sort((a, b) => area(a) - area(b))[0];
  layer.flyTo(seconds);
  if (under !== undefined && !under.visible) await showOnly(under, all);
}

/** Show `layer` and, as only one terrain can be used at a time, hide every other terrain. */
export async function showOnly(layer: Layer, layers: Iterable<Layer>): Promise<void> {
  for (const other of layers) {
    if (other !== layer && other.asset.kind === "terrain" && other.visible) other.hide();
  }
  await layer.show();
}
