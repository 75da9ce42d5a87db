// What classes and columns of points are called: ASPRS LAS 1.4 (R16), table 17, and its fields.

import { currentLanguage } from "./i18n";
import type { Asset } from "./catalogue";

type Names = readonly [string, string];

const classes: Readonly<Record<number, Names>> = {
  0: ["未处理", "Never classified"],
  1: ["未分类", "Unclassified"],
  2: ["地面", "Ground"],
  3: ["低植被", "Low vegetation"],
  4: ["中植被", "Medium vegetation"],
  5: ["高植被", "High vegetation"],
  6: ["建筑物", "Building"],
  7: ["低噪点", "Low noise"],
  8: ["模型关键点", "Model key point"],
  9: ["水体", "Water"],
  10: ["铁路", "Rail"],
  11: ["路面", "Road surface"],
  12: ["重叠点", "Overlap"],
  13: ["地线", "Wire, guard"],
  14: ["导线", "Wire, conductor"],
  15: ["输电塔", "Transmission tower"],
  16: ["绝缘子与金具", "Wire-structure connector"],
  17: ["桥面", "Bridge deck"],
  18: ["高噪点", "High noise"],
  19: ["架空结构", "Overhead structure"],
  20: ["忽略的地面", "Ignored ground"],
  21: ["积雪", "Snow"],
  22: ["时相排除", "Temporal exclusion"],
};
/** From here on, classes mean what the survey says. */
const firstOwn = 64;

const columns: Readonly<Record<string, Names>> = {
  classification: ["分类", "Class"],
  intensity: ["强度", "Intensity"],
  return_number: ["回波序号", "Return number"],
  number_of_returns: ["回波总数", "Number of returns"],
  synthetic: ["合成点", "Synthetic"],
  key_point: ["关键点", "Key point"],
  withheld: ["弃用点", "Withheld"],
  overlap: ["航带重叠", "Overlap"],
  scanner_channel: ["扫描通道", "Scanner channel"],
  scan_direction_flag: ["扫描方向", "Scan direction"],
  edge_of_flight_line: ["扫描线端点", "Edge of flight line"],
  scan_angle: ["扫描角（°）", "Scan angle (°)"],
  user_data: ["用户数据", "User data"],
  point_source_id: ["航带编号", "Point source id"],
  gps_time: ["GPS 时间（秒）", "GPS time (s)"],
  nir: ["近红外", "Near infrared"],
};

const datums: Readonly<Record<string, Names>> = {
  "EPSG:5737": ["1985 国家高程基准", "1985 national datum"],
  "EPSG:5773": ["EGM96 大地水准面", "EGM96 geoid"],
};

function inLanguage([chinese, english]: Names): string {
  return currentLanguage() === "zh" ? chinese : english;
}

/** The name of column `id`, its own where the LAS specification has none. */
export function columnName(asset: Asset, id: string): string {
  const known = columns[id];
  return known ? inLanguage(known) : (asset.fields.find((field) => field.id === id)?.name ?? id);
}

/** The name of a vertical datum, with its code. */
export function datumName(code: string): string {
  const known = datums[code];
  return known ? `${inLanguage(known)} ${code}` : code;
}

/** The name of a class of `asset`: the file's own, or else that of the specification. */
export function className(asset: Asset, value: number): string {
  const said = asset.fields.find(({ id }) => id === "classification")?.description ?? "";
  for (const part of said.split("; ")) {
    const space = part.indexOf(" ");
    if (space > 0 && part.slice(0, space) === String(value)) return part.slice(space + 1);
  }
  const known = classes[value];
  if (known) return inLanguage(known);
  return inLanguage(value >= firstOwn ? ["自定义类别", "User-defined"] : ["保留类别", "Reserved"]);
}

/** The classes of `asset` and how many points each has, by number; empty without any. */
export function classCounts(asset: Asset): [number, number][] {
  const counts = asset.info["classes"];
  // A class that all points have is no part of the tiles.
  const varies = asset.fields.some(({ id }) => id === "classification");
  if (!varies || typeof counts !== "object" || counts === null) return [];
  return Object.entries(counts).map(([value, count]): [number, number] => [Number(value), Number(count)]);
}
