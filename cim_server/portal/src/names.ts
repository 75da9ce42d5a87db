// What a feature is called.

const nameFields = ["name", "name:zh", "NAME", "Name", "名称", "MC", "mc", "XZQMC"];

/** The name among a feature's properties, if it has one. */
export function nameOf(properties: Record<string, unknown>): string | undefined {
  for (const field of nameFields) {
    const value = properties[field];
    if (typeof value === "string" && value.trim() !== "") return value.trim();
  }
  const other = Object.entries(properties).find(
    ([field, value]) => /name|名/i.test(field) && typeof value === "string" && value !== "",
  );
  return other === undefined ? undefined : String(other[1]);
}
