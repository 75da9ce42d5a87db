// Every sentence of the portal in both languages; Chinese first. Texts from the catalogue
// (titles, names of properties) are shown as they are.

export type Language = "zh" | "en";

const texts = {
  title: ["城市信息模型 CIM 平台", "City Information Model Platform"],
  subtitle: ["数字底座 · 资产目录与三维浏览", "Digital base · asset catalogue and globe"],
  language: ["English", "中文"],
  languageLabel: ["Switch to English", "切换为中文"],
  search: ["搜索图层：名称、编号、分类", "Search layers: name, id, category"],
  layers: ["图层", "Layers"],
  hidePanel: ["收起图层面板", "Hide the layer panel"],
  showPanel: ["展开图层面板", "Show the layer panel"],
  loading: ["正在读取目录…", "Reading the catalogue…"],
  loadingScene: ["正在加载场景…", "Loading the scene…"],
  emptyTitle: ["目录中还没有资产", "The catalogue is empty"],
  emptyText: [
    "用命令行导入第一份数据，发布后会自动出现在这里：",
    "Ingest a first source on the command line; it appears here once published:",
  ],
  noMatch: ["没有匹配的图层", "No layer matches"],
  unreachable: ["无法连接服务器", "The server cannot be reached"],
  retry: ["重试", "Try again"],
  noWebgl: [
    "浏览器没有可用的 WebGL 2，无法显示三维场景。请启用硬件加速或更换浏览器。",
    "WebGL 2 is not available, so the globe cannot be shown. Enable hardware acceleration or use another browser.",
  ],
  kind_buildings: ["白模", "White model"],
  kind_terrain: ["地形", "Terrain"],
  kind_imagery: ["影像", "Imagery"],
  kind_vector: ["矢量", "Vector"],
  kind_divisions: ["行政区划", "Divisions"],
  kind_pointcloud: ["点云", "Point cloud"],
  colouring: ["着色", "Colours"],
  colouring_rgb: ["真彩色", "True colour"],
  colouring_class: ["分类", "Classes"],
  pointSize: ["点大小", "Point size"],
  pointEdges: ["轮廓增强", "Edge shading"],
  point: ["点", "Point"],
  pointColour: ["颜色", "Colour"],
  elevation: ["高程", "Elevation"],
  measured: ["测量时间（UTC）", "Measured (UTC)"],
  classLegend: ["点云分类", "Point classes"],
  hillshade: ["山体阴影", "Hillshade"],
  noTerrain: ["不使用地形（椭球面）", "No terrain (ellipsoid)"],
  terrainGroup: ["选择地形", "Choose the terrain"],
  show: ["显示", "Show"],
  flyTo: ["飞到", "Fly to"],
  services: ["服务地址", "Service URLs"],
  details: ["详情", "Details"],
  opacity: ["不透明度", "Opacity"],
  layerFailed: ["加载失败", "Failed to load"],
  layerLoading: ["加载中", "Loading"],
  id: ["编号", "Id"],
  kind: ["类型", "Kind"],
  collection: ["分类", "Collection"],
  level: ["CIM 级别", "CIM level"],
  category: ["类别", "Category"],
  version: ["版本", "Version"],
  features: ["要素数", "Features"],
  levels: ["层级", "Levels"],
  datum: ["高程基准", "Vertical datum"],
  quality: ["质检", "Quality"],
  qualityReport: ["质检报告", "Quality report"],
  extent: ["范围", "Extent"],
  updated: ["发布时间", "Published"],
  licence: ["许可", "Licence"],
  attribution: ["来源", "Attribution"],
  stacItem: ["STAC 条目", "STAC item"],
  attributes: ["属性", "Attributes"],
  close: ["关闭", "Close"],
  noValue: ["（空）", "(empty)"],
  unnamed: ["未命名对象", "Unnamed object"],
  block: ["约 {n} 栋建筑（拉近可见每一栋）", "Block of {n} buildings (come nearer to see each)"],
  copy: ["复制", "Copy"],
  copied: ["已复制", "Copied"],
  urlCurrent: ["当前版本（随发布更新）", "Current (follows each publication)"],
  urlVersion: ["固定版本（永不改变）", "This version (never changes)"],
  urlXyz: ["瓦片模板 XYZ", "Tile template XYZ"],
  urlWmts: ["WMTS 能力文档", "WMTS capabilities"],
  urlStac: ["STAC 元数据", "STAC metadata"],
  urlPmtiles: ["PMTiles 存档", "PMTiles archive"],
  snippet: ["接入代码", "Code snippets"],
  lonLat: ["经纬度", "Lon, lat"],
  ellipsoidalHeight: ["椭球高", "Ellipsoidal height"],
  cameraHeight: ["视高", "Camera height"],
  frame: ["CGCS2000", "CGCS2000"],
  offGlobe: ["鼠标移到地球上读取坐标", "Move over the globe to read coordinates"],
  zoomIn: ["放大", "Zoom in"],
  zoomOut: ["缩小", "Zoom out"],
  north: ["正北", "North up"],
  tilt: ["俯视 / 斜视", "Top / oblique view"],
  home: ["全市范围", "Home: extent of the city"],
  legend: ["建筑高度（米）", "Building height (m)"],
  legendOther: ["其他", "other"],
  globe: ["三维地球，方向键平移，加减号缩放", "Globe; arrow keys pan, plus and minus zoom"],
  map: ["二维地图，方向键平移，加减号缩放", "Map; arrow keys pan, plus and minus zoom"],
  views: ["三维或二维", "Globe or map"],
  view_3d: ["三维", "3D"],
  view_2d: ["二维", "2D"],
  only3d: ["仅在三维中显示", "Shown in 3D only"],
  zoom: ["级别", "Zoom"],
  offMap: ["鼠标移到地图上读取坐标", "Move over the map to read coordinates"],
  onlyTile: ["仅显示瓦片中的属性", "Attributes of the tile only"],
  tools: ["地图工具", "Map tools"],
  tilesPending: ["正在加载瓦片", "Loading tiles"],
  ready: ["就绪", "Ready"],
} as const satisfies Record<string, readonly [string, string]>;

export type TextKey = keyof typeof texts;

const remembered = "cim.language";
const listeners = new Set<() => void>();

function initial(): Language {
  const asked = new URLSearchParams(location.search).get("lang") ?? localStorage.getItem(remembered);
  return asked === "en" ? "en" : "zh";
}

let language: Language = initial();

/** The language now shown. */
export function currentLanguage(): Language {
  return language;
}

/** The text of `key` in the language now shown. */
export function t(key: TextKey): string {
  return texts[key][language === "zh" ? 0 : 1];
}

/** Show the portal in `next`, remember it for the next visit, and tell every listener. */
export function setLanguage(next: Language): void {
  language = next;
  localStorage.setItem(remembered, next);
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const listener of listeners) listener();
}

/** Call `listener` whenever the language changes. */
export function onLanguage(listener: () => void): void {
  listeners.add(listener);
}
