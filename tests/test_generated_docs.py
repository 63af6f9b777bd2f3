from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from llm_trader.settings.loading import load_settings
from llm_trader.settings.tree import SETTINGS, Settings, env_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_docs", ROOT / "scripts" / "generate_docs.py"
    )
    if spec is None or spec.loader is None:
        pytest.fail("scripts/generate_docs.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # All of them take half a second, and these tests ask for them nine times.
    module.PAGES = {path: cache(page) for path, page in module.PAGES.items()}
    return module


def test_the_committed_pages_are_what_the_code_generates(generator: ModuleType):
    assert generator.drift(ROOT) == ""


def test_loading_the_example_gives_the_defaults():
    settings = load_settings(ROOT / "config" / "example.toml", environ={})
    assert settings == Settings()
    assert settings.digest() == Settings().digest()


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_in_the_example_and_in_the_reference(key: str):
    section, _, name = key.rpartition(".")
    example = (ROOT / "config" / "example.toml").read_text(encoding="utf-8")
    of_section = example.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
    assert f"{name} = " in of_section
    reference = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"| `{key}` | `{env_name(key)}` |" in reference


def test_a_page_that_was_edited_by_hand_fails_the_check_with_a_diff(
    generator: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    generator.write(tmp_path)
    assert generator.main(["--check"], root=tmp_path) == 0
    page = tmp_path / "config" / "example.toml"
    page.write_text(page.read_text(encoding="utf-8").replace("port = 7879", "port = 1"))
    assert generator.main(["--check"], root=tmp_path) == 1
    shown = capsys.readouterr()
    assert "-port = 1\n+port = 7879\n" in shown.out
    assert "make docs" in shown.err
    assert "port = 1\n" in page.read_text(encoding="utf-8")


def test_a_page_that_is_missing_fails_the_check_and_generating_writes_it(
    generator: ModuleType, tmp_path: Path
):
    assert generator.main(["--check"], root=tmp_path) == 1
    assert generator.main([], root=tmp_path) == 0
    assert generator.main(["--check"], root=tmp_path) == 0


def test_every_field_of_a_result_has_a_meaning_in_the_reference_of_the_methods():
    page = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8")
    results = page.partition("## Result fields")[2].partition("## Errors")[0]
    rows = [line.strip("|").split("|") for line in results.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if not row[2].strip()]
    for name in ("Outcome", "HorizonEvidence", "Metadata", "Freshness", "StatsResult"):
        assert f"\n### {name}\n" in results
