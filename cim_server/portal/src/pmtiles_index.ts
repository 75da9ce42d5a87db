// Which tiles a PMTiles v3 archive holds, read from its directories by range requests, so that
// the globe never asks for a tile that does not exist (every 404 would stand in the console).
// Layout: PMTiles specification version 3, sections 3 (header) and 4 (directories).

import { RequestError, type Asset } from "./catalogue";

interface Entry {
  id: number;
  offset: number;
  length: number;
  run: number;
}

const headerLength = 127;
const firstRead = 16_384;

/** Position of a tile on the Hilbert curve through all zooms (exact below 2^53, zoom 26). */
export function tileId(z: number, x: number, y: number): number {
  let id = (4 ** z - 1) / 3;
  for (let side = 2 ** (z - 1); side >= 1; side /= 2) {
    const right = Math.floor(x / side) % 2 === 1;
    const lower = Math.floor(y / side) % 2 === 1;
    id += side * side * (right ? (lower ? 2 : 3) : lower ? 1 : 0);
    if (!lower) {
      if (right) {
        x = side - 1 - (x % side);
        y = side - 1 - (y % side);
      }
      [x, y] = [y, x];
    }
  }
  return id;
}

function decode(bytes: Uint8Array): Entry[] {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new RangeError("PMTiles directory is cut short");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const count = varint();
  const column = (): number[] => Array.from({ length: count }, varint);
  let last = 0;
  const ids = column().map((delta) => (last += delta));
  const runs = column();
  const lengths = column();
  const entries: Entry[] = [];
  for (let index = 0; index < count; index += 1) {
    const stored = varint();
    const before = entries[index - 1];
    const offset = stored === 0 && before ? before.offset + before.length : stored - 1;
    entries.push({ id: ids[index]!, run: runs[index]!, length: lengths[index]!, offset });
  }
  return entries;
}

function lastAtOrBefore(entries: Entry[], id: number): Entry | undefined {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle]!.id <= id) low = middle + 1;
    else high = middle;
  }
  return entries[low - 1];
}

/** Whether a tile may be there: always, where a version is made of several archives. */
export type Holds = (z: number, x: number, y: number) => Promise<boolean>;

/** What holds of the vector tiles of `asset`. */
export function tilesHeld({ links }: Asset): Holds {
  const url = links["pmtiles"];
  if (url === undefined) return async () => true;
  const index = new PmtilesIndex(url);
  return (z, x, y) => index.has(z, x, y);
}

/** The directories of one archive; leaves are fetched when first needed. */
export class PmtilesIndex {
  private root: Promise<{ entries: Entry[]; leaves: number; gzip: boolean }> | undefined;
  private readonly leaves = new Map<number, Promise<Entry[]>>();

  constructor(private readonly url: string) {}

  /** Whether the archive holds the tile `z`/`x`/`y`. */
  async has(z: number, x: number, y: number): Promise<boolean> {
    const { entries, leaves, gzip } = await (this.root ??= this.readRoot());
    const id = tileId(z, x, y);
    let found = lastAtOrBefore(entries, id);
    while (found && found.run === 0) {
      const { offset, length } = found;
      let leaf = this.leaves.get(offset);
      if (leaf === undefined) {
        leaf = this.read(leaves + offset, length).then((bytes) => directory(bytes, gzip));
        this.leaves.set(offset, leaf);
      }
      found = lastAtOrBefore(await leaf, id);
    }
    return found !== undefined && id < found.id + found.run;
  }

  private async readRoot(): Promise<{ entries: Entry[]; leaves: number; gzip: boolean }> {
    const bytes = await this.read(0, firstRead);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < headerLength || new TextDecoder().decode(bytes.subarray(0, 7)) !== "PMTiles") {
      throw new RequestError(`${this.url}: not a PMTiles archive`);
    }
    const number = (at: number): number => Number(view.getBigUint64(at, true));
    const [offset, length] = [number(8), number(16)];
    const gzip = view.getUint8(97) === 2;
    const inside = offset + length <= bytes.length;
    const packed = inside ? bytes.subarray(offset, offset + length) : await this.read(offset, length);
    return { entries: await directory(packed, gzip), leaves: number(40), gzip };
  }

  private async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const range = `bytes=${offset}-${offset + length - 1}`;
    const response = await fetch(this.url, { headers: { Range: range } });
    if (!response.ok) throw new RequestError(`${this.url}: HTTP ${response.status}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return response.status === 206 ? bytes : bytes.slice(offset, offset + length);
  }
}

async function directory(bytes: Uint8Array<ArrayBuffer>, gzip: boolean): Promise<Entry[]> {
  if (!gzip) return decode(bytes);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return decode(new Uint8Array(await new Response(stream).arrayBuffer()));
}
