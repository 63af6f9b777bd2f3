from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.backup.builders import Site, make_site


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store and an index; not to be written to."""
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(pristine: Site, tmp_path: Path) -> Site:
    """A store and an index of the test's own."""
    shutil.copytree(pristine.folder, tmp_path / "site")
    return Site(tmp_path / "site")
