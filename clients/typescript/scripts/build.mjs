// Builds `dist/esm` and `dist/cjs` with tsc, and says in each which kind of modules it has.
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");

// npm packs no file from outside, and no link to one.
copyFileSync(join(root, "..", "..", "LICENSE"), join(root, "LICENSE"));
rmSync(join(root, "dist"), { recursive: true, force: true });
for (const [format, type] of [["esm", "module"], ["cjs", "commonjs"]]) {
  const { status } = spawnSync(process.execPath, [tsc, "-p", join(root, `tsconfig.${format}.json`)], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  writeFileSync(join(root, "dist", format, "package.json"), `${JSON.stringify({ type })}\n`);
}
