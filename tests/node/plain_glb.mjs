// Rewrites glb files without EXT_meshopt_compression, with the decoder of the meshoptimizer project.
// stdin and stdout: files one after the other, each behind its length (4 bytes, little-endian).
import { readSync, writeSync } from "node:fs";
import { MeshoptDecoder } from "meshoptimizer";

const MESHOPT = "EXT_meshopt_compression";

function read(nbytes) {
  const data = Buffer.alloc(nbytes);
  for (let at = 0; at < nbytes; ) {
    let got;
    try {
      got = readSync(0, data, at, nbytes - at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      continue;
    }
    if (got === 0) {
      if (at === 0) return undefined;
      throw new Error(`input ends ${nbytes - at} bytes early`);
    }
    at += got;
  }
  return data;
}

function write(data) {
  for (let at = 0; at < data.length; ) {
    try {
      at += writeSync(1, data, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

function plain(glb) {
  const jsonBytes = glb.readUInt32LE(12);
  const gltf = JSON.parse(glb.toString("utf-8", 20, 20 + jsonBytes));
  const binary = glb.subarray(28 + jsonBytes);
  const parts = [];
  let length = 0;
  for (const view of gltf.bufferViews) {
    const packed = view.extensions?.[MESHOPT];
    let data;
    if (packed === undefined) {
      if (view.buffer !== 0) throw new Error("a plain view of a buffer without bytes");
      data = binary.subarray(view.byteOffset ?? 0, (view.byteOffset ?? 0) + view.byteLength);
    } else {
      if (packed.buffer !== 0) throw new Error("compressed bytes outside the file");
      const { byteOffset = 0, byteLength, count, byteStride, mode, filter = "NONE" } = packed;
      data = new Uint8Array(count * byteStride);
      const source = binary.subarray(byteOffset, byteOffset + byteLength);
      MeshoptDecoder.decodeGltfBuffer(data, count, byteStride, source, mode, filter);
      if (data.length !== view.byteLength) throw new Error("the view is not as long as its data");
      delete view.extensions;
    }
    view.buffer = 0;
    view.byteOffset = length;
    const padding = -data.length & 7;
    parts.push(data, new Uint8Array(padding));
    length += data.length + padding;
  }
  gltf.buffers = [{ byteLength: length }];
  for (const list of ["extensionsUsed", "extensionsRequired"]) {
    gltf[list] = gltf[list]?.filter((name) => name !== MESHOPT);
  }
  let text = Buffer.from(JSON.stringify(gltf));
  text = Buffer.concat([text, Buffer.alloc((4 - (text.length & 7)) & 7, 0x20)]);
  const made = Buffer.alloc(28);
  made.write("glTF", 0);
  made.writeUInt32LE(2, 4);
  made.writeUInt32LE(28 + text.length + length, 8);
  made.writeUInt32LE(text.length, 12);
  made.write("JSON", 16);
  made.writeUInt32LE(length, 20);
  made.write("BIN\0", 24);
  return Buffer.concat([made.subarray(0, 20), text, made.subarray(20), ...parts]);
}

await MeshoptDecoder.ready;
for (let head = read(4); head !== undefined; head = read(4)) {
  const answer = plain(read(head.readUInt32LE(0)));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(answer.length);
  write(Buffer.concat([size, answer]));
}
