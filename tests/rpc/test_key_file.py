from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc.key_file import create_key, read_keys, revoke_keys
from llm_trader.rpc.keys import KeyRing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def created(path: Path, name: str, expires_at_ms: int | None = None) -> str:
    return create_key(path, name, ["query"], now_ms=10, expires_at_ms=expires_at_ms)[1]


def test_a_created_key_is_256_random_bits_and_only_its_digest_is_kept(path: Path) -> None:
    first, second = created(path, "desk"), created(path, "worker")
    assert first != second
    for token in (first, second):
        assert len(token.removeprefix("llmt_")) == 43  # 32 bytes in base64
        assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing()
    ring.follow_file(read_keys(path))
    found = ring.find(first)
    assert found is not None
    assert (found.name, found.scopes) == ("desk", {"query"})
    assert ring.find(first + "x") is None


def test_a_revoked_key_stays_listed_and_frees_its_name(path: Path) -> None:
    token = created(path, "desk")
    (revoked,) = revoke_keys(path, "desk", now_ms=20)
    assert revoked.status(20) == "revoked"
    again = created(path, "desk")
    assert [key.revoked_at_ms for key in read_keys(path)] == [20, None]
    ring = KeyRing()
    ring.follow_file(read_keys(path))
    assert ring.find(token) is None
    assert ring.find(again) is not None


def test_a_key_is_revoked_by_its_id_as_well(path: Path) -> None:
    created(path, "desk")
    (key,) = read_keys(path)
    assert revoke_keys(path, key.id, now_ms=20)[0].name == "desk"


def test_two_active_keys_have_no_name_in_common_but_an_ended_one_gives_it_up(path: Path) -> None:
    created(path, "desk", expires_at_ms=11)
    with pytest.raises(InvalidInputError, match="an active key is named 'desk'"):
        created(path, "desk")
    create_key(path, "desk", ["query"], now_ms=11, expires_at_ms=None)


@pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 65, "\x1b[2J"])
def test_a_name_that_could_disturb_a_log_or_a_table_is_refused(path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="name"):
        created(path, name)


def test_revoking_what_is_not_there_names_what_is(path: Path) -> None:
    created(path, "desk")
    with pytest.raises(InvalidInputError, match="there are: 'desk'"):
        revoke_keys(path, "dsek", now_ms=20)


def test_keys_that_are_created_at_once_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: created(path, f"worker {n}"), range(16)))
    assert len({key.id for key in read_keys(path)}) == 16


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not a key file"),
        ('{"version":1,"keys":[{}]}', "is not a key file"),
        ('{"version":2,"keys":[]}', "has version 2"),
    ],
)
def test_a_damaged_file_is_refused(path: Path, content: str, problem: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=problem):
        read_keys(path)


def test_a_digest_that_is_none_is_refused_with_its_place(path: Path) -> None:
    created(path, "desk")
    document = json.loads(path.read_text())
    document["keys"][0]["sha256"] = "ABC"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=r"key 1 \('desk'\) has no SHA-256"):
        read_keys(path)


def test_a_file_that_others_may_write_to_is_refused_with_the_remedy(path: Path) -> None:
    created(path, "desk")
    path.chmod(0o620)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_keys(path)


def test_a_missing_file_is_refused_with_the_command_that_makes_one(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="llm-trader keys create NAME --keys-file"):
        read_keys(path)
