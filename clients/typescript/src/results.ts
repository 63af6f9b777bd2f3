/** Whether a result is what its type says, as far as its outermost fields tell. */

import { UnexpectedResultError } from "./errors.js";
import { RESULT_FIELDS } from "./wire.js";

/** The result as it is. Throws `UnexpectedResultError` where a server of another version answers. */
export function checkResult(method: string, result: unknown): unknown {
  const shapes = Object.hasOwn(RESULT_FIELDS, method) ? RESULT_FIELDS[method as keyof typeof RESULT_FIELDS] : [];
  const missing = shapes.map((shape: readonly string[]) => shape.filter((field) => !hasField(result, field)));
  if (missing.length > 0 && missing.every((fields) => fields.length > 0)) {
    const fewest = missing.reduce((one, other) => (other.length < one.length ? other : one));
    throw new UnexpectedResultError(
      `${method}: the result is not what this client expects: it has no ${fewest.join(", ")}; ` +
        "use the client of the server's version",
    );
  }
  return result;
}

function hasField(value: unknown, field: string): boolean {
  return typeof value === "object" && value !== null && Object.hasOwn(value, field);
}
