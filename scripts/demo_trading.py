"""`make demo-trading`: from an exchange to orders on paper, without a network or keys.

1. The exchange that the tests use replays a simulated market; `data collect` stores and indexes it.
2. `serve` answers what followed similar states; a stub speaks the interface of a language model.
3. `workflow serve` takes each snapshot of a day: evidence, prompt, decision, guard, order on paper.
4. Some hours more, in which the workflow is killed in the middle of an order, and then the server.

Every part is a process of its own, as in use; only their clock is simulated, and it waits while
they decide. It exits with 1 where anything that it claims did not happen.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from trading_demo.processes import DemoError  # noqa: E402
from trading_demo.screen import Screen  # noqa: E402
from trading_demo.story import Story  # noqa: E402
from trading_demo.surroundings import Surroundings  # noqa: E402

from llm_trader.errors import LlmTraderError  # noqa: E402  `tests` stands beside `scripts`
from llm_trader.logs import configure_logging  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=int, default=24, help="of the day, 1 to 24")
    parser.add_argument("--more-hours", type=int, default=4, help="with the kills, 2 to 24")
    options = parser.parse_args()
    if not (1 <= options.hours <= 24 and 2 <= options.more_hours <= 24):
        parser.error("--hours is 1 to 24, --more-hours 2 to 24")
    configure_logging("warn", "console")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Screen()
    try:
        with tempfile.TemporaryDirectory(prefix="llm-trader-trading-") as folder:
            surroundings = Surroundings.in_folder(Path(folder))
            with ExitStack() as stack:
                story = Story(surroundings, screen, stack)
                story.set_up(options.hours, options.more_hours)
                story.day()
                story.kills()
    except (DemoError, LlmTraderError) as error:
        screen.end()
        sys.stderr.write(f"\nThe demo failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        screen.end()
        sys.stderr.write("\nStopped; no process is left.\n")
        return 130
    screen.say(f"\nDone in {screen.seconds():.0f} s. All processes have stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
