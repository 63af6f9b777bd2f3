/** Folders, as seen from `build/test/support`, where this is compiled to. */

import { fileURLToPath } from "node:url";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export const PACKAGE = here("../../../");
export const REPOSITORY = here("../../../../../");
