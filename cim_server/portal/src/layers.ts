// The layers a person switches on and off: an asset, its drawings in the views where it was wanted,
// and its state in the one that is seen.

import type { Asset } from "./catalogue";
import { firstLook, type PointLook } from "./point_look";
import type { Drawing, View } from "./view";

export type LayerState = "off" | "loading" | "on" | "failed";

/** One layer; `change` fires whenever its state, opacity or error does, or the view. */
export class Layer extends EventTarget {
  state: LayerState = "off";
  error = "";
  opacity = 1;
  private readonly drawings = new Map<View, Drawing>();
  private readonly coming = new Map<View, Promise<Drawing>>();
  private wanted = false;
  private looks: PointLook | undefined;
  private shade = false;

  constructor(
    private view: View,
    readonly asset: Asset,
  ) {
    super();
  }

  /** Whether the layer is switched on, drawn or not. */
  get visible(): boolean {
    return this.wanted;
  }

  /** Whether the view that is seen can draw it. */
  get drawable(): boolean {
    return this.view.draws(this.asset.kind);
  }

  /** Draw the layer; resolves when it is in the view or its failure is shown. */
  async show(): Promise<void> {
    if (this.wanted && this.state !== "failed") return;
    this.wanted = true;
    for (const drawing of this.drawings.values()) drawing.setVisible(true);
    await this.appear();
  }

  hide(): void {
    this.wanted = false;
    for (const drawing of this.drawings.values()) drawing.setVisible(false);
    if (this.state !== "loading") this.become("off");
  }

  /** Be drawn in `view` from now on; resolves as `show` does. */
  async enter(view: View): Promise<void> {
    this.view = view;
    if (this.wanted) await this.appear();
    else this.become("off");
  }

  /** `opacity` from 0 to 1. */
  setOpacity(opacity: number): void {
    this.opacity = opacity;
    for (const drawing of this.drawings.values()) drawing.setOpacity(opacity);
    this.dispatchEvent(new Event("change"));
  }

  /** Whether the hillshade of a terrain lies on it. */
  get shaded(): boolean {
    return this.shade;
  }

  setShaded(shaded: boolean): void {
    this.shade = shaded;
    for (const drawing of this.drawings.values()) drawing.setShaded?.(shaded);
    this.dispatchEvent(new Event("change"));
  }

  /** How its points look. */
  get look(): PointLook {
    return this.looks ?? firstLook(this.asset);
  }

  /** Change some of how its points look. */
  setLook(change: Partial<PointLook>): void {
    this.looks = { ...this.look, ...change };
    for (const drawing of this.drawings.values()) drawing.setLook?.(this.looks);
    this.dispatchEvent(new Event("change"));
  }

  flyTo(seconds = 1.6): void {
    const { bounds, heights, kind } = this.asset;
    // A scan of one room or statue is a cloud too.
    this.view.lookAt(bounds, heights, seconds, kind === "pointcloud" ? 40 : undefined);
  }

  busy(): boolean {
    const drawing = this.drawings.get(this.view);
    return this.state === "loading" || (this.state === "on" && (drawing?.busy() ?? false));
  }

  private async appear(): Promise<void> {
    const { view } = this;
    if (!this.drawable) return this.become("off");
    if (this.drawings.has(view)) return this.become("on");
    this.become("loading");
    const coming =
      this.coming.get(view) ?? view.draw(this.asset, (error) => this.fail(view, error));
    this.coming.set(view, coming);
    try {
      const drawing = await coming;
      if (!this.drawings.has(view)) {
        this.drawings.set(view, drawing);
        if (this.opacity < 1) drawing.setOpacity(this.opacity);
        if (this.shade) drawing.setShaded?.(true);
        if (this.looks !== undefined) drawing.setLook?.(this.looks);
      }
      drawing.setVisible(this.wanted);
      if (this.view === view) this.become(this.wanted ? "on" : "off");
    } catch (error) {
      this.fail(view, error);
    } finally {
      this.coming.delete(view);
    }
  }

  private become(state: LayerState): void {
    this.state = state;
    if (state !== "failed") this.error = "";
    this.dispatchEvent(new Event("change"));
  }

  private fail(view: View, error: unknown): void {
    if (view !== this.view) return;
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
