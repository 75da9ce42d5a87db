// Vector tiles draped on the terrain: each tile is drawn on a canvas and handed to Cesium as a
// picture; a click is answered from the same decoded tile.

import {
  Cartographic,
  Credit,
  Event,
  ImageryLayerFeatureInfo,
  Math as CesiumMath,
  Rectangle,
  WebMercatorTilingScheme,
  type Proxy,
  type TileDiscardPolicy,
} from "cesium";
import type { VectorTileFeature } from "@mapbox/vector-tile";
import type { Asset } from "./catalogue";
import type { Hit } from "./picked";
import type { Symbol } from "./symbols";
import type { TilePart, VectorSource } from "./vector_source";

const side = 512;
const deepest = 20;
/** How far a click may miss a line or a point, in pixels of the drawn tile. */
const reach = 8;

/** What a click found, and the feature's lines in degrees. */
export interface VectorHit extends Omit<Hit, "reach_m"> {
  lines(): Promise<[number, number][][]>;
}

type Rings = { x: number; y: number }[][];

function canvas(size: number): HTMLCanvasElement {
  const made = document.createElement("canvas");
  made.width = made.height = size;
  return made;
}

function trace(context: CanvasRenderingContext2D, rings: Rings, closed: boolean): void {
  context.beginPath();
  for (const ring of rings) {
    ring.forEach((point, index) =>
      index === 0 ? context.moveTo(point.x, point.y) : context.lineTo(point.x, point.y),
    );
    if (closed) context.closePath();
  }
}

/** Features of every layer of a tile but the label layers, in drawing order. */
function* drawn(part: TilePart): Generator<[VectorTileFeature, number, string]> {
  for (const [name, layer] of Object.entries(part.tile.layers)) {
    if (name.endsWith("_label")) continue;
    for (let index = 0; index < layer.length; index += 1) {
      yield [layer.feature(index), layer.extent, name];
    }
  }
}

/** A feature's geometry in pixels of the drawn tile. */
function pixels(feature: VectorTileFeature, extent: number, part: TilePart): Rings {
  const scale = side / (extent * part.share);
  const left = (part.left / part.share) * side;
  const top = (part.top / part.share) * side;
  return feature
    .loadGeometry()
    .map((ring) => ring.map((point) => ({ x: point.x * scale - left, y: point.y * scale - top })));
}

function draw(
  context: CanvasRenderingContext2D,
  part: TilePart,
  symbol: Symbol,
  far: boolean,
): void {
  context.lineJoin = context.lineCap = "round";
  const shapes = [...drawn(part)].map(
    ([feature, extent]) => [feature.type, pixels(feature, extent, part)] as const,
  );
  if (symbol.fill) {
    context.fillStyle = symbol.fill;
    for (const [type, rings] of shapes) {
      if (type !== 3) continue;
      trace(context, rings, true);
      context.fill("evenodd");
    }
  }
  const strokes: [string, number][] = [[symbol.line, symbol.width]];
  if (symbol.casing) strokes.unshift([symbol.casing, symbol.width + 2.4]);
  for (const [color, width] of strokes) {
    context.strokeStyle = color;
    context.lineWidth = width;
    for (const [type, rings] of shapes) {
      if (type === 1) continue;
      trace(context, rings, type === 3);
      context.stroke();
    }
  }
  context.fillStyle = symbol.line;
  context.strokeStyle = "rgba(255, 255, 255, 0.9)";
  context.lineWidth = 1.4;
  for (const [type, rings] of shapes) {
    if (type !== 1) continue;
    for (const { x, y } of rings.flat()) {
      context.beginPath();
      context.arc(x, y, far ? 1.6 : symbol.point, 0, 2 * Math.PI);
      context.fill();
      if (!far) context.stroke();
    }
  }
}

function inside(rings: Rings, x: number, y: number): boolean {
  let crossings = 0;
  for (const ring of rings) {
    for (let index = 0; index < ring.length; index += 1) {
      const a = ring[index]!;
      const b = ring[(index + 1) % ring.length]!;
      if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) crossings += 1;
    }
  }
  return crossings % 2 === 1;
}

function distance(rings: Rings, x: number, y: number): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (const ring of rings) {
    for (let index = 0; index < Math.max(1, ring.length - 1); index += 1) {
      const a = ring[index]!;
      const b = ring[index + 1] ?? a;
      const [dx, dy] = [b.x - a.x, b.y - a.y];
      const along = dx === 0 && dy === 0 ? 0 : ((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy);
      const share = Math.min(1, Math.max(0, along));
      nearest = Math.min(nearest, Math.hypot(a.x + share * dx - x, a.y + share * dy - y));
    }
  }
  return nearest;
}

/** The outline of a feature without the edges along which its tile was cut. */
function outline(feature: VectorTileFeature, part: TilePart): [number, number][][] {
  const { extent } = feature;
  const within = (value: number): boolean => value >= 0 && value <= extent;
  const degrees = (point: { x: number; y: number }): [number, number] => {
    const share = 2 ** -part.z;
    const down = (part.y + point.y / extent) * share;
    return [
      (part.x + point.x / extent) * share * 360 - 180,
      (Math.atan(Math.sinh(Math.PI * (1 - 2 * down))) * 180) / Math.PI,
    ];
  };
  const lines: [number, number][][] = [];
  for (const ring of feature.loadGeometry()) {
    let line: [number, number][] = [];
    for (const point of ring) {
      if (within(point.x) && within(point.y)) line.push(degrees(point));
      else {
        if (line.length > 0) lines.push(line);
        line = [];
      }
    }
    if (line.length > 0) lines.push(line);
  }
  return lines;
}

/** A Cesium imagery provider over a `VectorSource`. */
export class MvtImageryProvider {
  readonly tilingScheme = new WebMercatorTilingScheme();
  readonly rectangle: Rectangle;
  readonly tileWidth = side;
  readonly tileHeight = side;
  readonly minimumLevel = 0;
  readonly maximumLevel = deepest;
  readonly hasAlphaChannel = true;
  readonly errorEvent = new Event();
  readonly credit: Credit | undefined;
  readonly proxy = undefined as unknown as Proxy;
  readonly tileDiscardPolicy = undefined as unknown as TileDiscardPolicy;
  readonly defaultAlpha = undefined;
  readonly defaultNightAlpha = undefined;
  readonly defaultDayAlpha = undefined;
  readonly defaultBrightness = undefined;
  readonly defaultContrast = undefined;
  readonly defaultHue = undefined;
  readonly defaultSaturation = undefined;
  readonly defaultGamma = undefined;
  readonly defaultMinificationFilter = undefined as never;
  readonly defaultMagnificationFilter = undefined as never;
  private readonly blank = canvas(1);

  /** `failed` hears of tiles that exist but could not be read. */
  constructor(
    private readonly source: VectorSource,
    private readonly symbol: Symbol,
    private readonly asset: Asset,
    private readonly failed: (error: unknown) => void,
  ) {
    const [west, south, east, north] = source.bounds;
    this.rectangle = Rectangle.fromDegrees(west, Math.max(south, -85), east, Math.min(north, 85));
    this.credit = source.attribution === "" ? undefined : new Credit(source.attribution);
  }

  getTileCredits(): Credit[] {
    return [];
  }

  requestImage(x: number, y: number, level: number): Promise<HTMLCanvasElement> {
    return this.paint(x, y, level).catch((error: unknown) => {
      this.failed(error);
      return this.blank;
    });
  }

  private async paint(x: number, y: number, level: number): Promise<HTMLCanvasElement> {
    const part = await this.source.part(level, x, y);
    if (part === undefined) return this.blank;
    const picture = canvas(side);
    // Four zooms above the last, points would hide each other and the map.
    const far = level < this.source.maxzoom - 3;
    draw(picture.getContext("2d")!, part, this.symbol, far);
    return picture;
  }

  /** Features under a click, nearest first; `data` of each is a `VectorHit`. */
  async pickFeatures(
    x: number,
    y: number,
    level: number,
    longitude: number,
    latitude: number,
  ): Promise<ImageryLayerFeatureInfo[]> {
    const part = await this.source.part(level, x, y);
    if (part === undefined) return [];
    const mercator = this.tilingScheme.tileXYToNativeRectangle(x, y, level);
    const point = this.tilingScheme.projection.project(new Cartographic(longitude, latitude));
    const px = ((point.x - mercator.west) / (mercator.east - mercator.west)) * side;
    const py = ((mercator.north - point.y) / (mercator.north - mercator.south)) * side;
    const hits: [number, VectorTileFeature, string][] = [];
    for (const [feature, extent, layer] of drawn(part)) {
      const rings = pixels(feature, extent, part);
      if (feature.type === 3) {
        if (inside(rings, px, py)) hits.push([reach, feature, layer]);
      } else {
        const away = distance(rings, px, py);
        if (away <= reach) hits.push([away, feature, layer]);
      }
    }
    hits.sort((a, b) => a[0] - b[0]);
    return hits.map(([, feature, layer]) => {
      const info = new ImageryLayerFeatureInfo();
      const { properties, id } = feature;
      info.data = {
        asset: this.asset,
        id,
        properties,
        longitude: CesiumMath.toDegrees(longitude),
        latitude: CesiumMath.toDegrees(latitude),
        lines: async () => {
          if (id === undefined) return outline(feature, part);
          const pieces = await this.source.pieces(part, layer, id);
          return pieces.flatMap(([where, piece]) => outline(piece, where));
        },
      } satisfies VectorHit;
      return info;
    });
  }
}
