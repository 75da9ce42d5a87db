// Point clouds on the globe.

import { Cesium3DTileset, PointCloudShading } from "cesium";
import { RequestError, type Asset } from "./catalogue";
import type { Globe } from "./globe";
import { firstLook, type PointLook } from "./point_look";
import { styleOf } from "./point_style";
import type { Drawing, Failed } from "./view";

// A level's error is two spacings, so half of it closes surfaces; points come as close as three
// pixels where there are finer levels, and grow to ten where there are none.
const errorScale = 0.5;
const screenError = 6;
const largest_px = 10;

function settingsOf(look: PointLook): Partial<PointCloudShading> {
  return {
    geometricErrorScale: errorScale * look.size,
    maximumAttenuation: largest_px * look.size,
    eyeDomeLighting: look.edges,
  };
}

function shadingOf(look: PointLook): PointCloudShading {
  return new PointCloudShading({
    attenuation: true,
    eyeDomeLightingStrength: 0.25,
    ...settingsOf(look),
  });
}

/** Draws points as large as they stand apart, so that surfaces close. */
export async function drawPoints(globe: Globe, asset: Asset, failed: Failed): Promise<Drawing> {
  const tileset = await Cesium3DTileset.fromUrl(asset.service, {
    maximumScreenSpaceError: screenError,
    preloadFlightDestinations: true,
    pointCloudShading: shadingOf(firstLook(asset)),
  });
  tileset.tileFailed.addEventListener((event: { url: string; message: string }) =>
    failed(new RequestError(`${event.url}: ${event.message}`)),
  );
  let wanted: PointLook | undefined;
  let styled = "";
  const setLook = async (look: PointLook): Promise<void> => {
    wanted = look;
    const style = await styleOf(look);
    if (wanted !== look) return;
    const says = JSON.stringify(style?.style ?? null);
    if (says === styled) {
      Object.assign(tileset.pointCloudShading, settingsOf(look));
    } else {
      styled = says;
      tileset.style = style;
      // A style alone does not make CesiumJS (1.145) write the shaders of glTF points again; new
      // shading does.
      tileset.pointCloudShading = shadingOf(look);
    }
    globe.draw();
  };
  await setLook(firstLook(asset));
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
    setLook: (look) => void setLook(look).catch(failed),
    busy: () => tileset.show && !tileset.tilesLoaded,
    destroy: () => scene.primitives.remove(tileset),
  };
}
