// A click on the globe: the building, the point, or else the vector feature, under it; and its
// highlight.

import {
  Cartesian2,
  Cartesian3,
  Cesium3DTileFeature,
  Cesium3DTileset,
  Color,
  PointPrimitiveCollection,
  type Cesium3DTileContent,
  type Entity,
  type ImageryLayerFeatureInfo,
} from "cesium";
import type { Asset } from "./catalogue";
import { metresPerPixel, type Globe } from "./globe";
import { t } from "./i18n";
import type { VectorHit } from "./mvt_imagery";
import { pickedOf, titleOf, type Picked } from "./picked";
import { className } from "./point_columns";
import type { PointLook } from "./point_look";
import { pointAt, pointAttributes } from "./point_picking";

/** The asset that a tileset on the globe is, and how its points look. */
export interface Owner {
  asset: Asset;
  look: PointLook;
}

const highlight = Color.fromCssColorString("#ffb020");
/** How far a click may miss a line or a point, in pixels. */
const reach_px = 8;

/** Reads and highlights features; holds at most one highlight. */
export class Picker {
  private restore: () => void = () => undefined;
  private turn = 0;
  private readonly marks: PointPrimitiveCollection;

  constructor(
    private readonly globe: Globe,
    private readonly layerOf: (tileset: Cesium3DTileset) => Owner | undefined,
  ) {
    this.marks = globe.widget.scene.primitives.add(new PointPrimitiveCollection()) as PointPrimitiveCollection;
  }

  /** The feature at a pixel of the canvas, highlighted; undefined where there is none. */
  async pick(pixel: Cartesian2): Promise<Picked | undefined> {
    this.clear();
    const found: unknown = this.globe.widget.scene.pick(pixel);
    if (found instanceof Cesium3DTileFeature) return this.building(found, pixel);
    const { content, primitive } = (found ?? {}) as { content?: Cesium3DTileContent; primitive?: unknown };
    const layer = primitive instanceof Cesium3DTileset ? this.layerOf(primitive) : undefined;
    // Finished tilesets that were taken in hold points in ways of their own.
    const ours = layer?.asset.kind === "pointcloud" && "point_error_m" in layer.asset.info;
    if (content !== undefined && ours) return this.point(content, pixel, layer);
    return this.vector(pixel);
  }

  /** Take the highlight away. */
  clear(): void {
    this.turn += 1;
    this.restore();
    this.restore = () => undefined;
    this.globe.draw();
  }

  private building(feature: Cesium3DTileFeature, pixel: Cartesian2): Picked {
    const asset = this.layerOf(feature.tileset)?.asset;
    const names = this.names(pixel, asset);
    const attributes = feature
      .getPropertyIds()
      .map((id) => ({ id, name: names.get(id) ?? id, value: feature.getProperty(id) as unknown }));
    const before = Color.clone(feature.color);
    feature.color = highlight;
    this.restore = () => {
      if (!feature.tileset.isDestroyed()) feature.color = before;
    };
    this.globe.draw();
    return { asset, attributes, title: titleOf(attributes, asset) };
  }

  private async point(
    content: Cesium3DTileContent,
    pixel: Cartesian2,
    layer: Owner,
  ): Promise<Picked | undefined> {
    const turn = this.turn;
    const { asset, look } = layer;
    const point = await pointAt(this.globe.widget.scene, content, pixel, asset, look.hidden);
    if (point === undefined || turn !== this.turn) return undefined;
    const mark = this.marks.add({
      position: point.place,
      pixelSize: 9,
      color: highlight,
      outlineColor: Color.BLACK,
      outlineWidth: 2,
      disableDepthTestDistance: Number.POSITIVE_INFINITY,
    });
    this.restore = () => this.marks.remove(mark);
    this.globe.draw();
    const kind = point.tile.value("classification", point.row);
    return {
      asset,
      // Read again in the other language when it changes.
      get attributes() {
        return pointAttributes(point);
      },
      get title() {
        return kind === null ? t("point") : `${t("point")} · ${className(asset, kind)}`;
      },
    };
  }

  /** Names of properties, from the schema in the tile and from the catalogue. */
  private names(pixel: Cartesian2, asset: Asset | undefined): Map<string, string> {
    const names = new Map((asset?.fields ?? []).map((field) => [field.id, field.name]));
    const schema = this.globe.widget.scene.pickMetadataSchema(pixel);
    for (const kind of Object.values((schema?.classes ?? {}) as Record<string, MetadataNames>)) {
      for (const [id, property] of Object.entries(kind.properties)) {
        if (property.name) names.set(id, property.name);
      }
    }
    return names;
  }

  private async vector(pixel: Cartesian2): Promise<Picked | undefined> {
    const { scene, camera, entities } = this.globe.widget;
    const ray = camera.getPickRay(pixel);
    const answers = ray && scene.imageryLayers.pickImageryLayerFeatures(ray, scene);
    const infos: ImageryLayerFeatureInfo[] = answers ? await answers : [];
    const hit = infos.map((info) => info.data as VectorHit | undefined).find((data) => data !== undefined);
    if (hit === undefined) return undefined;
    const turn = this.turn;
    const middle = scene.globe.pick(ray!, scene);
    const away = middle === undefined ? 0 : Cartesian3.distance(middle, camera.positionWC);
    const reach_m = reach_px * metresPerPixel(this.globe.widget, away);
    const [lines, [picked]] = await Promise.all([hit.lines(), pickedOf({ ...hit, reach_m })]);
    if (turn !== this.turn) return undefined;
    const drawn: Entity[] = lines
      .filter((line) => line.length > 1)
      .map((line) =>
        entities.add({
          polyline: {
            positions: line.map(([longitude, latitude]) => Cartesian3.fromDegrees(longitude, latitude)),
            width: 4,
            clampToGround: true,
            material: highlight,
          },
        }),
      );
    this.restore = () => drawn.forEach((entity) => entities.remove(entity));
    this.globe.draw();
    return picked;
  }
}

interface MetadataNames {
  properties: Record<string, { name?: string }>;
}
