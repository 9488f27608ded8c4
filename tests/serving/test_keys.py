import sqlite3
import stat

import pytest

from limner.serving.keys import KeyStore


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "data" / "keys.sqlite")


def test_a_key_is_valid_until_it_is_revoked(store):
    key, other = store.create("laptop"), store.create("phone")
    assert key != other
    assert store.find(key).name == "laptop"
    assert [kept.name for kept in store.list()] == ["laptop", "phone"]
    store.revoke("laptop")
    assert store.find(key) is None
    assert store.find(other).name == "phone"


def test_only_a_hash_is_kept_and_only_the_owner_reads_it(store):
    key = store.create("laptop")
    secret = key.split("-", 2)[2].encode()
    files = list(store.path.parent.iterdir())
    assert files
    for file in files:
        assert secret not in file.read_bytes()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with sqlite3.connect(store.path) as connection:
        assert len(connection.execute("SELECT hash FROM keys").fetchone()[0]) == 32


@pytest.mark.parametrize(
    "wrong", ["", "x", "limner-0-0", "limner-{id}-", "limner-{id}-guess", "é-é-é"]
)
def test_what_is_no_key_is_nobodys(store, wrong):
    key = store.create("laptop")
    assert store.find(wrong.format(id=key.split("-")[1])) is None
    assert store.find(key + "x") is None
    assert store.find(key[:-1]) is None


def test_mistakes_say_what_to_do(store):
    store.create("laptop")
    with pytest.raises(ValueError, match="'laptop' already"):
        store.create("laptop")
    with pytest.raises(ValueError, match="no key named 'phone'"):
        store.revoke("phone")
    with pytest.raises(ValueError, match="printable"):
        store.create("a\nb")
