// The hillshade of a terrain, draped on it: loaded when it is first wanted.

import type { ImageryLayer } from "cesium";
import type { Asset } from "./catalogue";
import { ranks, type Globe } from "./globe";
import { rasterLayer } from "./raster_layer";
import { reliefJson } from "./relief";
import type { Failed } from "./view";

/** Whether a tile failed because the terrain has a void there. */
function isVoid(error: unknown): boolean {
  const { error: cause } = error as { error?: { statusCode?: number } };
  return cause?.statusCode === 404;
}

/** The shade of one terrain; it shows while it is wanted and the terrain is in use. */
export class Hillshade {
  private layer: ImageryLayer | undefined;
  private loading: Promise<void> | undefined;
  private wanted = false;
  private visible = false;
  private opacity = 1;
  private gone = false;

  constructor(
    private readonly globe: Globe,
    private readonly asset: Asset,
    private readonly failed: Failed,
  ) {}

  setWanted(wanted: boolean): void {
    this.wanted = wanted;
    this.follow();
  }

  setVisible(visible: boolean): void {
    this.visible = visible;
    this.follow();
  }

  setOpacity(opacity: number): void {
    this.opacity = opacity;
    this.follow();
  }

  busy(): boolean {
    return this.loading !== undefined;
  }

  destroy(): void {
    this.gone = true;
    if (this.layer !== undefined) this.globe.undrape(this.layer);
  }

  private follow(): void {
    if (this.layer !== undefined) {
      this.layer.show = this.wanted && this.visible;
      this.layer.alpha = this.opacity;
      this.globe.draw();
    } else if (this.wanted && this.visible) {
      this.loading ??= this.load().catch(this.failed).finally(() => (this.loading = undefined));
    }
  }

  private async load(): Promise<void> {
    const report: Failed = (error) => {
      if (!isVoid(error)) this.failed(error);
    };
    // Any level can be asked for, but from afar a hillshade is a speck.
    const layer = await rasterLayer(
      `${reliefJson(this.asset, "hillshade")}?tilesize=512`,
      this.asset.bounds,
      report,
      Number.POSITIVE_INFINITY,
    );
    if (this.gone) return;
    this.layer = layer;
    this.globe.drape(layer, ranks.relief);
    this.follow();
  }
}
