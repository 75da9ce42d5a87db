// Prints, as one JSON object, the issues that the Khronos validator finds in the glb files named.
const fs = require("fs");
const validator = require("gltf-validator");

(async () => {
  const found = {};
  for (const file of process.argv.slice(2)) {
    const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)), {
      maxIssues: 0,
    });
    found[file] = report.issues.messages.filter((message) => message.severity < 2);
  }
  process.stdout.write(JSON.stringify(found));
})();
