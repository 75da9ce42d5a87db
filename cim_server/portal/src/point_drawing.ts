// Point clouds: in their own colours, or each class in one.

import { Cesium3DTileset, PointCloudShading } from "cesium";
import { styleAt, type StyleJson } from "./building_style";
import { RequestError, getJson, type Asset } from "./catalogue";
import type { Drawing, Failed } from "./drawings";
import type { Globe } from "./globe";

export const colourings = ["rgb", "class"] as const;
/** What the colours of points say. */
export type Colouring = (typeof colourings)[number];

/** What the points of `asset` can be coloured by, the first one by default. */
export function colouringsOf(asset: Asset): Colouring[] {
  const depth = asset.info["colour_depth"];
  const classed = asset.fields.some(({ id }) => id === "classification");
  return colourings.filter((each) => (each === "rgb" ? Number(depth ?? 0) > 0 : classed));
}

/** Draws points as large as they stand apart, so that surfaces close. */
export async function drawPoints(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const tileset = await Cesium3DTileset.fromUrl(asset.service, {
    // A level's error is two spacings: points come as close as three pixels.
    maximumScreenSpaceError: 6,
    preloadFlightDestinations: true,
    pointCloudShading: new PointCloudShading({
      attenuation: true,
      geometricErrorScale: 0.5,
      maximumAttenuation: 6,
      eyeDomeLighting: false,
    }),
  });
  tileset.tileFailed.addEventListener((event: { url: string; message: string }) =>
    failed(new RequestError(`${event.url}: ${event.message}`)),
  );
  const colour = async (colouring: Colouring | undefined): Promise<void> => {
    wanted = colouring;
    const style =
      colouring === "class" ? styleAt(await getJson<StyleJson>("styles/pointcloud.json"), 1) : undefined;
    if (wanted === colouring) tileset.style = style;
    globe.draw();
  };
  let wanted: Colouring | undefined;
  await colour(colouringsOf(asset)[0]);
  const { scene } = globe.widget;
  scene.primitives.add(tileset);
  globe.draw();
  return {
    setVisible(visible) {
      tileset.show = visible;
      globe.draw();
    },
    // A style that fades points would have to name their colour, which Cesium cannot read here.
    setOpacity: () => undefined,
    setColouring: (colouring) => void colour(colouring).catch(failed),
    busy: () => tileset.show && !tileset.tilesLoaded,
    destroy: () => scene.primitives.remove(tileset),
  };
}
