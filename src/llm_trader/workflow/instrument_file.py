"""Rules of contracts in a file, for paper accounts that trade without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.storage.files import read_whole, write_atomically, write_errors
from llm_trader.workflow.instrument import InstrumentRules


def write_instruments(path: Path, rules: Iterable[InstrumentRules]) -> None:
    """Replaces the file. Raises `ConfigurationError` where it cannot be written."""
    content = msgspec.json.encode(sorted(rules, key=lambda rule: rule.symbol))
    with write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(content, indent=1) + b"\n")


def instruments_of(path: Path | None) -> Callable[[str], InstrumentRules]:
    """The rules of each symbol; of one that the file lacks, steps too small to matter.

    Raises `ConfigurationError` where the file is missing or has another form.
    """
    if path is None:
        return lambda symbol: InstrumentRules(symbol=symbol)
    try:
        rows = msgspec.json.decode(read_whole(path), type=list[InstrumentRules])
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, InvalidInputError) as error:
        raise ConfigurationError(
            f"{path} is no list of contracts with symbol, quantity_step and price_tick: {error}"
        ) from None
    known = {rule.symbol: rule for rule in rows}
    return lambda symbol: known.get(symbol) or InstrumentRules(symbol=symbol)
