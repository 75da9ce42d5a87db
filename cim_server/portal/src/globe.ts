// The globe: a Cesium widget without any online service, lit like a hill-shaded map, drawing
// only when something changes.

import {
  Cartesian2,
  Cartesian3,
  Cartographic,
  CesiumWidget,
  Color,
  Credit,
  CreditDisplay,
  DirectionalLight,
  EllipsoidTerrainProvider,
  HeadingPitchRange,
  BoundingSphere,
  ImageryLayer,
  Ion,
  Math as CesiumMath,
  Matrix4,
  Rectangle,
  SceneMode,
  TileMapServiceImageryProvider,
  Transforms,
  buildModuleUrl,
  type PerspectiveFrustum,
  type TerrainProvider,
} from "cesium";
import { element } from "./element";

/** Order of draped layers from the ground up. */
export const ranks = { base: 0, imagery: 1, relief: 2, areas: 3, divisions: 4, lines: 5, points: 6 } as const;

export interface Globe {
  widget: CesiumWidget;
  /** Drape `layer` above every layer of the same or a lower rank. */
  drape(layer: ImageryLayer, rank: number): void;
  undrape(layer: ImageryLayer): void;
  setTerrain(provider: TerrainProvider | undefined): void;
  /** Look at a box (degrees, metres) from the south, from `nearest_m` away or more. */
  lookAt(bounds: readonly number[], heights: readonly number[], seconds: number, nearest_m?: number): void;
  draw(): void;
}

// Light from behind the viewer's left shoulder, whatever the hour and wherever the city lies: the
// faces of a white model differ in brightness, and none that is seen lies in the dark.
const lightAzimuth = CesiumMath.toRadians(-125);
const lightAltitude = CesiumMath.toRadians(48);

function keepLight(widget: CesiumWidget, light: DirectionalLight): void {
  const frame = new Matrix4();
  const local = new Cartesian3();
  widget.scene.preRender.addEventListener(() => {
    const camera = widget.camera;
    Transforms.eastNorthUpToFixedFrame(camera.positionWC, undefined, frame);
    const azimuth = camera.heading + lightAzimuth;
    local.x = -Math.cos(lightAltitude) * Math.sin(azimuth);
    local.y = -Math.cos(lightAltitude) * Math.cos(azimuth);
    local.z = -Math.sin(lightAltitude);
    Matrix4.multiplyByPointAsVector(frame, local, light.direction);
  });
}

/** Make the globe inside `container`, on the Natural Earth picture that ships with Cesium. */
export async function makeGlobe(container: HTMLElement): Promise<Globe> {
  Ion.defaultAccessToken = "";
  CreditDisplay.cesiumCredit = new Credit("CesiumJS", true);
  const light = new DirectionalLight({ direction: new Cartesian3(0, 0, -1), intensity: 2.2 });
  const samples = Number(new URLSearchParams(location.search).get("msaa") ?? 4);
  const widget = new CesiumWidget(container, {
    baseLayer: false,
    terrainProvider: new EllipsoidTerrainProvider(),
    skyBox: false,
    sceneMode: SceneMode.SCENE3D,
    requestRenderMode: true,
    maximumRenderTimeChange: Number.POSITIVE_INFINITY,
    msaaSamples: samples,
    shouldAnimate: false,
    creditContainer: element("div", { class: "credits" }),
  });
  const { scene, camera } = widget;
  container.append(widget.creditContainer);
  scene.light = light;
  scene.backgroundColor = Color.fromCssColorString("#0a121b");
  if (scene.moon) scene.moon.show = false;
  if (scene.sun) scene.sun.show = false;
  scene.globe.baseColor = Color.fromCssColorString("#20303c");
  scene.globe.enableLighting = true;
  scene.globe.dynamicAtmosphereLighting = false;
  scene.globe.lambertDiffuseMultiplier = 0.75;
  scene.globe.vertexShadowDarkness = 0.4;
  scene.globe.depthTestAgainstTerrain = true;
  scene.globe.showGroundAtmosphere = false;
  scene.fog.density = 1.5e-4;
  scene.screenSpaceCameraController.minimumZoomDistance = 20;
  keepLight(widget, light);

  const base = ImageryLayer.fromProviderAsync(
    TileMapServiceImageryProvider.fromUrl(buildModuleUrl("Assets/Textures/NaturalEarthII"), {
      credit: new Credit("Natural Earth"),
    }),
    { saturation: 0.35, brightness: 0.7, contrast: 1.05 },
  );
  const layers = scene.imageryLayers;
  const rankOf = new Map<ImageryLayer, number>([[base, ranks.base]]);
  layers.add(base);

  return {
    widget,
    drape(layer, rank) {
      let index = 0;
      while (index < layers.length && (rankOf.get(layers.get(index)) ?? 0) <= rank) index += 1;
      rankOf.set(layer, rank);
      layers.add(layer, index);
      scene.requestRender();
    },
    undrape(layer) {
      rankOf.delete(layer);
      layers.remove(layer, true);
      scene.requestRender();
    },
    setTerrain(provider) {
      scene.terrainProvider = provider ?? new EllipsoidTerrainProvider();
      scene.requestRender();
    },
    lookAt(bounds, heights, seconds, nearest_m = 400) {
      const [west = 0, south = 0, east = 0, north = 0] = bounds;
      const rectangle = Rectangle.fromDegrees(west, south, east, north);
      const sphere = BoundingSphere.fromRectangle3D(rectangle, undefined, heights[0] ?? 0);
      const wide = sphere.radius > 200_000;
      camera.flyToBoundingSphere(sphere, {
        duration: seconds,
        offset: new HeadingPitchRange(
          0,
          CesiumMath.toRadians(wide ? -80 : -38),
          Math.max(sphere.radius * (wide ? 2.4 : 1.4), nearest_m),
        ),
      });
      scene.requestRender();
    },
    draw: () => scene.requestRender(),
  };
}

/** Longitude, latitude (radians) and ellipsoidal height (metres) of the ground at a pixel. */
export function groundAt(widget: CesiumWidget, pixel: Cartesian2): Cartographic | undefined {
  const ray = widget.camera.getPickRay(pixel);
  const point = ray && widget.scene.globe.pick(ray, widget.scene);
  return point && Cartographic.fromCartesian(point);
}

/** How wide a CSS pixel is at a distance from the camera, in metres. */
export function metresPerPixel({ camera, canvas }: CesiumWidget, away_m: number): number {
  // Between frames the vertical angle may not be known; the wider side has `fov`.
  const { fov = 1, aspectRatio = 1 } = camera.frustum as PerspectiveFrustum;
  const side = aspectRatio > 1 ? canvas.clientWidth : canvas.clientHeight;
  return (2 * away_m * Math.tan(fov / 2)) / side;
}
