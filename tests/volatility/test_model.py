"""A model is read as it was written, and anything else is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.volatility.model import BUILT_IN, VolatilityModel, read_model, write_model


def test_a_model_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    model = msgspec.structs.replace(BUILT_IN, known_by_ms=1_700_000_000_000)
    write_model(model, tmp_path / "models" / "mine.json")
    assert read_model(tmp_path / "models" / "mine.json") == model


def test_its_id_is_that_of_its_constants_alone() -> None:
    changed = dict(BUILT_IN.coefficients) | {"1h": (0.0,) * 8}
    other = msgspec.structs.replace(BUILT_IN, coefficients=changed)
    assert other.id != BUILT_IN.id
    assert msgspec.structs.replace(BUILT_IN, known_by_ms=5).id == BUILT_IN.id
    assert BUILT_IN.id == "har-254273"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no volatility model"),
        (b"[]", "no volatility model"),
        (msgspec.json.encode(BUILT_IN).replace(b'"24h"', b'"25h"'), "an equation for each of"),
        (msgspec.json.encode(BUILT_IN).replace(b"-1.354,", b""), "7 coefficients, not 8"),
        (msgspec.json.encode(BUILT_IN).replace(b"[1.19,", b"[-1.19,"), "24 hour factors above 0"),
        (
            msgspec.json.encode(BUILT_IN).replace(b'"schema_version":1', b'"schema_version":2'),
            "schema version 2, this program reads 1",
        ),
    ],
)
def test_what_is_no_model_is_refused_with_the_file_and_the_remedy(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_model(path)
    assert "llm-trader volatility fit" in refused.value.message
    assert str(path) in refused.value.message


def test_a_model_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="llm-trader volatility fit"):
        read_model(tmp_path / "none.json")


def test_too_few_factors_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="24 hour factors"):
        VolatilityModel(hour_factors=(1.0,), coefficients=BUILT_IN.coefficients)
