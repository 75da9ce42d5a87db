// Decodes meshopt-compressed buffer views with the decoder of the meshoptimizer project.
// stdin: [{data: base64, count, stride, mode}]; stdout: [base64, or null where it refuses].
import { readFileSync } from "node:fs";
import { MeshoptDecoder } from "meshoptimizer";

await MeshoptDecoder.ready;
const jobs = JSON.parse(readFileSync(0, "utf-8"));
const answers = jobs.map(({ data, count, stride, mode }) => {
  const target = new Uint8Array(count * stride);
  try {
    MeshoptDecoder.decodeGltfBuffer(target, count, stride, Buffer.from(data, "base64"), mode, "NONE");
  } catch {
    return null;
  }
  return Buffer.from(target).toString("base64");
});
process.stdout.write(JSON.stringify(answers));
