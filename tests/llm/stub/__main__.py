"""`python -m tests.llm.stub [--port PORT]`: the stub as a process, until it is interrupted."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading

from tests.llm.stub.server import TEST_KEY, StubServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.llm.stub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="by default any free one")
    arguments = parser.parse_args()
    with StubServer(port=arguments.port) as stub, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"{stub.url} key {TEST_KEY}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
