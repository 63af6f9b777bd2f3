from __future__ import annotations

import re

import pytest

from llm_trader.serving.metrics.definitions import DEFINITIONS, PROTOTYPE_METRICS, Definition


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
def test_each_name_keeps_the_rules_of_prometheus(definition: Definition) -> None:
    assert re.fullmatch(r"llm_trader_[a-z_]+", definition.name)
    assert definition.name.endswith("_total") == (definition.kind == "counter")
    assert list(definition.buckets) == sorted(set(definition.buckets))
    assert bool(definition.buckets) == (definition.kind == "histogram")
    assert definition.meaning.endswith(".")


def test_no_name_stands_twice() -> None:
    names = [definition.name for definition in DEFINITIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("query", PROTOTYPE_METRICS.values())
def test_the_metrics_of_the_prototype_are_made_of_those_that_there_are(query: str) -> None:
    named = re.findall(r"llm_trader_[a-z_]+", query)
    known = {definition.name for definition in DEFINITIONS}
    assert named
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= known
