// Names of areas and places, as Cesium labels that stand on the terrain. Labels are chosen anew
// whenever the camera rests: those whose boxes overlap a more important name are left out.

import {
  Cartesian2,
  Cartesian3,
  Cartographic,
  Color,
  LabelCollection,
  LabelStyle,
  Math as CesiumMath,
  Rectangle,
  SceneTransforms,
  HeightReference,
  HorizontalOrigin,
  VerticalOrigin,
} from "cesium";
import type { Globe } from "./globe";
import { nameOf } from "./names";
import type { Symbol } from "./symbols";
import type { VectorSource } from "./vector_source";

const fonts = '"PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Zen Hei", sans-serif';
const mostTiles = 24;
const mostLabels = 120;
interface Place {
  name: string;
  longitude: number;
  latitude: number;
}

const taken: { owner: Labels; box: [number, number, number, number] }[] = [];

/** The labels of one vector layer. */
export class Labels {
  private readonly collection: LabelCollection;
  private readonly stop: () => void;
  private visible = true;
  private opacity = 1;
  private turn = 0;

  constructor(
    private readonly globe: Globe,
    private readonly source: VectorSource,
    private readonly layer: string,
    private readonly symbol: Symbol,
    private readonly closest: boolean,
    private readonly failed: (error: unknown) => void,
  ) {
    const { scene, camera } = globe.widget;
    this.collection = scene.primitives.add(new LabelCollection({ scene })) as LabelCollection;
    this.stop = camera.moveEnd.addEventListener(() => this.refresh());
    this.refresh();
  }

  setVisible(visible: boolean): void {
    this.visible = visible;
    this.refresh();
  }

  setOpacity(opacity: number): void {
    this.opacity = opacity;
    this.refresh();
  }

  destroy(): void {
    this.turn += 1;
    this.stop();
    this.free();
    this.globe.widget.scene.primitives.remove(this.collection);
  }

  private refresh(): void {
    const turn = (this.turn += 1);
    this.places()
      .then((places) => {
        if (turn === this.turn) this.place(places);
      })
      .catch(this.failed);
  }

  private free(): void {
    for (let index = taken.length - 1; index >= 0; index -= 1) {
      if (taken[index]!.owner === this) taken.splice(index, 1);
    }
  }

  /** Named points of the tiles in view, at a zoom that suits the camera's height. */
  private async places(): Promise<Place[]> {
    const view = this.globe.widget.camera.computeViewRectangle();
    if (!this.visible || view === undefined) return [];
    const [west, south, east, north] = this.source.bounds;
    const part = Rectangle.intersection(view, Rectangle.fromDegrees(west, south, east, north));
    if (part === undefined) return [];
    let zoom = Math.min(this.source.maxzoom, this.zoomOfView());
    if (this.closest && zoom < this.source.maxzoom - 2) return [];
    let tiles = tilesOf(part, zoom);
    while (tiles.length > mostTiles && zoom > this.source.minzoom) tiles = tilesOf(part, (zoom -= 1));
    if (zoom < this.source.minzoom || tiles.length > mostTiles) return [];
    const found = new Map<string, Place>();
    const parts = await Promise.all(tiles.map(([x, y]) => this.source.part(zoom, x, y)));
    for (const tile of parts) {
      const points = tile?.tile.layers[this.layer];
      if (tile === undefined || points === undefined) continue;
      for (let index = 0; index < points.length; index += 1) {
        const feature = points.feature(index);
        const name = nameOf(feature.properties);
        const at = feature.type === 1 ? feature.loadGeometry()[0]?.[0] : undefined;
        if (name === undefined || at === undefined) continue;
        if (at.x < 0 || at.y < 0 || at.x >= points.extent || at.y >= points.extent) continue;
        const side = 2 ** -tile.z;
        const longitude = (tile.x + at.x / points.extent) * side * 360 - 180;
        const fromNorth = (tile.y + at.y / points.extent) * side;
        const latitude = CesiumMath.toDegrees(Math.atan(Math.sinh(Math.PI * (1 - 2 * fromNorth))));
        found.set(`${feature.id ?? ""}/${name}`, { name, longitude, latitude });
      }
    }
    return [...found.values()];
  }

  /** The zoom whose 512 px tiles are as fine as the screen, from the camera's height. */
  private zoomOfView(): number {
    const { camera, canvas } = this.globe.widget;
    const height = Math.max(1, camera.positionCartographic.height);
    const pitch = Math.max(0.35, Math.sin(-camera.pitch));
    const metresPerPixel = (2 * (height / pitch) * Math.tan(0.5)) / Math.max(1, canvas.clientHeight);
    return Math.max(0, Math.floor(Math.log2(40_075_016 / 512 / metresPerPixel)));
  }

  private place(places: Place[]): void {
    const { scene, camera } = this.globe.widget;
    this.collection.removeAll();
    this.free();
    const sight = new Cartesian3();
    const up = new Cartesian3();
    const { size, color } = this.symbol.label;
    const fill = Color.fromCssColorString(color).withAlpha(this.opacity);
    const outline = Color.fromCssColorString("#06121c").withAlpha(0.9 * this.opacity);
    const pixel = new Cartesian2();
    for (const { name, longitude, latitude } of places) {
      if (this.collection.length >= mostLabels) break;
      const ground = Cartographic.fromDegrees(longitude, latitude);
      ground.height = scene.globe.getHeight(ground) ?? 0;
      const position = Cartesian3.fromRadians(ground.longitude, ground.latitude, ground.height);
      Cartesian3.subtract(position, camera.positionWC, sight);
      if (Cartesian3.dot(sight, scene.ellipsoid.geodeticSurfaceNormal(position, up)!) >= 0) continue;
      if (!SceneTransforms.worldToWindowCoordinates(scene, position, pixel)) continue;
      const half = (name.length * size) / 2 + 4;
      const box: [number, number, number, number] = [
        pixel.x - half,
        pixel.y - size - 8,
        pixel.x + half,
        pixel.y + 4,
      ];
      const free = taken.every(
        ({ box: [left, top, right, bottom] }) =>
          box[0] > right || box[2] < left || box[1] > bottom || box[3] < top,
      );
      if (!free) continue;
      taken.push({ owner: this, box });
      this.collection.add({
        position,
        text: name,
        font: `600 ${2 * size}px ${fonts}`,
        // Drawn at twice its size and halved, so that strokes of characters stay crisp.
        scale: 0.5,
        fillColor: fill,
        outlineColor: outline,
        outlineWidth: 6,
        style: LabelStyle.FILL_AND_OUTLINE,
        heightReference: HeightReference.CLAMP_TO_GROUND,
        horizontalOrigin: HorizontalOrigin.CENTER,
        verticalOrigin: VerticalOrigin.BOTTOM,
        pixelOffset: new Cartesian2(0, this.closest ? -this.symbol.point - 3 : 0),
        disableDepthTestDistance: 60_000,
      });
    }
    this.globe.draw();
  }
}

function tilesOf(view: Rectangle, zoom: number): [number, number][] {
  const count = 2 ** zoom;
  const column = (longitude: number): number =>
    Math.min(count - 1, Math.max(0, Math.floor((longitude / (2 * Math.PI) + 0.5) * count)));
  const row = (latitude: number): number => {
    const mercator = Math.log(Math.tan(Math.PI / 4 + latitude / 2)) / Math.PI;
    return Math.min(count - 1, Math.max(0, Math.floor(((1 - mercator) / 2) * count)));
  };
  const [left, right] = [column(view.west), column(view.east)];
  const [top, bottom] = [row(view.north), row(view.south)];
  if ((right - left + 1) * (bottom - top + 1) > 4096) return new Array(mostTiles + 1).fill([0, 0]);
  const tiles: [number, number][] = [];
  for (let y = top; y <= bottom; y += 1) for (let x = left; x <= right; x += 1) tiles.push([x, y]);
  return tiles;
}
