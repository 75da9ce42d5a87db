// Builds the portal into static/: index.html, and everything it asks for below static/ of the
// page's own address, always by relative URLs, so that the page works under any prefix or proxy.
import { cp, mkdir, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const modules = resolve(here, "node_modules");
const output = resolve(here, "static");

// What the portal never shows stays out of the wheel: stars, lens flares, large water, map pins,
// Google Earth and Gaussian splats.
const unneeded = [
  "Assets/Textures/SkyBox",
  "Assets/Textures/LensFlare",
  "Assets/Textures/maki",
  "Assets/Textures/waterNormals.jpg",
  "Assets/Textures/moonSmall",
  "ThirdParty/google-earth-dbroot-parser.js",
  "ThirdParty/wasm_splats_bg.wasm",
];

async function vendorCesium(): Promise<void> {
  const from = resolve(modules, "cesium/Build/Cesium");
  for (const folder of ["Assets", "ThirdParty", "Workers"]) {
    await cp(resolve(from, folder), resolve(output, "cesium", folder), {
      recursive: true,
      filter: (source) => !unneeded.some((name) => source.startsWith(resolve(from, name))),
    });
  }
  await cp(resolve(modules, "cesium/LICENSE.md"), resolve(output, "cesium/LICENSE.md"));
}

async function vendorFiles(name: string, files: Record<string, string>): Promise<void> {
  await mkdir(resolve(output, name), { recursive: true });
  for (const [file, target] of Object.entries(files)) {
    await cp(resolve(modules, file), resolve(output, name, target));
  }
}

function vendor(): Plugin {
  return {
    name: "vendor-libraries",
    apply: "build",
    async closeBundle() {
      await vendorCesium();
      await vendorFiles("swagger", {
        "swagger-ui-dist/swagger-ui.css": "swagger-ui.css",
        "swagger-ui-dist/swagger-ui-bundle.js": "swagger-ui-bundle.js",
        "swagger-ui-dist/favicon-32x32.png": "favicon-32x32.png",
        "swagger-ui-dist/LICENSE": "LICENSE",
        "swagger-ui-dist/NOTICE": "NOTICE",
      });
      await vendorFiles("maplibre", {
        "maplibre-gl/dist/maplibre-gl.mjs": "maplibre-gl.mjs",
        "maplibre-gl/dist/maplibre-gl-worker.mjs": "maplibre-gl-worker.mjs",
        "maplibre-gl/dist/maplibre-gl.css": "maplibre-gl.css",
        "maplibre-gl/LICENSE.txt": "LICENSE.txt",
      });
      await rm(resolve(output, ".vite"), { recursive: true, force: true });
    },
  };
}

export default defineConfig({
  root: here,
  base: "./",
  plugins: [vendor()],
  experimental: {
    renderBuiltUrl: (filename, { hostType }) =>
      hostType === "html" ? `./static/${filename}` : { relative: true },
  },
  build: {
    outDir: output,
    emptyOutDir: true,
    assetsDir: "assets",
    target: "es2022",
    sourcemap: false,
    chunkSizeWarningLimit: 8000,
  },
});
