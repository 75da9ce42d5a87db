// Where the portal and its vendored files live, both taken from the page's own address, so that
// the same build works at "/", below a prefix, and behind a proxy.

declare global {
  interface Window {
    CESIUM_BASE_URL: string;
  }
}

/** The server's root as the browser sees it, with a final slash. */
export const serverRoot = new URL("./", document.baseURI);

/** Cesium's workers and textures; Cesium reads this global before it asks for the first file. */
window.CESIUM_BASE_URL = new URL("static/cesium/", serverRoot).href;
