// A tile of points as this server writes it (glb, EXT_meshopt_compression, property attributes),
// read on the processor: CesiumJS keeps points on the graphics card alone, and cannot tell which
// of them a click hit.

import { Cartesian3, Matrix3, Matrix4 } from "cesium";
import { MeshoptDecoder } from "meshoptimizer/decoder";
import { RequestError } from "./catalogue";

type Numbers = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Float32Array;

/** Values of the points, `step` numbers apart. */
interface Column {
  values: Numbers;
  step: number;
}

interface Accessor {
  bufferView: number;
  componentType: number;
  count: number;
}

interface Meshopt {
  byteOffset?: number;
  byteLength: number;
  byteStride: number;
  count: number;
  mode: string;
  filter?: string;
}

interface Gltf {
  nodes: { matrix?: number[]; translation?: number[]; scale?: number[] }[];
  meshes: { primitives: { attributes: Record<string, number> }[] }[];
  accessors: Accessor[];
  bufferViews: { extensions: { EXT_meshopt_compression: Meshopt } }[];
  extensions?: {
    EXT_structural_metadata?: {
      schema: { classes: Record<string, { properties: Record<string, { noData?: number }> }> };
      propertyAttributes: {
        class: string;
        properties: Record<string, { attribute: string; offset?: number }>;
      }[];
    };
  };
}

/** Makes numbers of a buffer from a byte on. */
type Make = (buffer: ArrayBuffer) => Numbers;
const types: Record<number, Make> = {
  5120: (buffer) => new Int8Array(buffer),
  5121: (buffer) => new Uint8Array(buffer),
  5122: (buffer) => new Int16Array(buffer),
  5123: (buffer) => new Uint16Array(buffer),
  5125: (buffer) => new Uint32Array(buffer),
  5126: (buffer) => new Float32Array(buffer),
};
const headerBytes = 12;
// glTF has y up, 3D Tiles z.
const upright = Matrix4.fromRotationTranslation(new Matrix3(1, 0, 0, 0, 0, -1, 0, 1, 0));

/** The points of a tile. */
export class PointTile {
  readonly count: number;
  /** Integers of the tile to Earth-centred metres. */
  readonly toEarth: Matrix4;
  private readonly positions: Column;
  private readonly colours: Column | undefined;
  private readonly columns = new Map<string, Column & { offset: number; noData: number | undefined }>();

  constructor(gltf: Gltf, binary: Uint8Array) {
    const [outer, inner] = gltf.nodes;
    const primitive = gltf.meshes[0]?.primitives[0];
    if (outer?.matrix === undefined || inner === undefined || primitive === undefined) {
      throw new RequestError("not a tile of points of this server");
    }
    const read = (name: string): Column => columnOf(gltf, binary, primitive.attributes[name]);
    this.positions = read("POSITION");
    this.count = gltf.accessors[primitive.attributes["POSITION"] ?? 0]?.count ?? 0;
    this.colours = "COLOR_0" in primitive.attributes ? read("COLOR_0") : undefined;
    const metadata = gltf.extensions?.EXT_structural_metadata;
    for (const stated of metadata?.propertyAttributes ?? []) {
      for (const [id, { attribute, offset = 0 }] of Object.entries(stated.properties)) {
        const noData = metadata?.schema.classes[stated.class]?.properties[id]?.noData;
        this.columns.set(id, { ...read(attribute), offset, noData });
      }
    }
    const scale = Matrix4.fromScale(Cartesian3.unpack(inner.scale ?? [1, 1, 1]));
    const moved = Matrix4.fromTranslation(Cartesian3.unpack(inner.translation ?? [0, 0, 0]));
    const local = Matrix4.multiply(moved, scale, new Matrix4());
    const placed = Matrix4.multiply(upright, Matrix4.unpack(outer.matrix), new Matrix4());
    this.toEarth = Matrix4.multiply(placed, local, placed);
  }

  /** Coordinate `axis` of point `row`, an integer of the tile. */
  at(row: number, axis: number): number {
    return this.positions.values[row * this.positions.step + axis] ?? Number.NaN;
  }

  /** Earth-centred metres of point `row`. */
  place(row: number): Cartesian3 {
    const local = new Cartesian3(this.at(row, 0), this.at(row, 1), this.at(row, 2));
    return Matrix4.multiplyByPoint(this.toEarth, local, local);
  }

  get properties(): string[] {
    return [...this.columns.keys()];
  }

  /** Property `id` of point `row`; null where nothing was measured. */
  value(id: string, row: number): number | null {
    const column = this.columns.get(id);
    const stored = column?.values[row * column.step];
    if (column === undefined || stored === undefined || stored === column.noData) return null;
    return stored + column.offset;
  }

  /** Red, green and blue of point `row`, sRGB from 0 to 255. */
  colour(row: number): [number, number, number] | undefined {
    const { colours } = this;
    if (colours === undefined) return undefined;
    const channel = (which: number): number => {
      const linear = (colours.values[row * colours.step + which] ?? 0) / 65535;
      // IEC 61966-2-1.
      const encoded = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
      return Math.round(255 * encoded);
    };
    return [channel(0), channel(1), channel(2)];
  }
}

function columnOf(gltf: Gltf, binary: Uint8Array, index: number | undefined): Column {
  const accessor = gltf.accessors[index ?? -1];
  const view = gltf.bufferViews[accessor?.bufferView ?? -1]?.extensions.EXT_meshopt_compression;
  const make = types[accessor?.componentType ?? -1];
  if (view === undefined || make === undefined) {
    throw new RequestError("not a tile of points of this server");
  }
  const { byteOffset = 0, byteLength, byteStride, count, mode, filter } = view;
  const bytes = new Uint8Array(new ArrayBuffer(count * byteStride));
  const source = binary.subarray(byteOffset, byteOffset + byteLength);
  MeshoptDecoder.decodeGltfBuffer(bytes, count, byteStride, source, mode, filter);
  const values = make(bytes.buffer);
  return { values, step: byteStride / values.BYTES_PER_ELEMENT };
}

/** Read the tile at `url`, which the browser has in its cache. */
export async function readPointTile(url: string): Promise<PointTile> {
  const [response] = await Promise.all([fetch(url), MeshoptDecoder.ready]);
  if (!response.ok) throw new RequestError(`${url}: HTTP ${response.status}`);
  const data = new Uint8Array(await response.arrayBuffer());
  const header = new DataView(data.buffer);
  if (data.length < headerBytes + 8 || header.getUint32(0, true) !== 0x46546c67) {
    throw new RequestError(`${url}: not a glb`);
  }
  const jsonBytes = header.getUint32(headerBytes, true);
  const start = headerBytes + 8;
  const gltf = JSON.parse(new TextDecoder().decode(data.subarray(start, start + jsonBytes))) as Gltf;
  return new PointTile(gltf, data.subarray(start + jsonBytes + 8));
}
