import stat
from pathlib import Path

import pytest

from appliance import keyfiles
from appliance.keyfiles import KeyFile, KeyFileError


@pytest.mark.parametrize("role", keyfiles.ROLES)
def test_a_key_comes_back_from_its_file_whole(role: str, tmp_path: Path) -> None:
    key = keyfiles.generate(role, tenant="acme")
    keyfiles.create(tmp_path / "a.key", key)
    assert keyfiles.read(tmp_path / "a.key") == key


def test_a_private_file_is_closed_to_others_and_leaves_no_temporary(tmp_path: Path) -> None:
    keyfiles.create(tmp_path / "a.key", keyfiles.generate("root", tenant="*"))
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]


def test_a_public_file_has_no_private_half(tmp_path: Path) -> None:
    key = keyfiles.generate("caller", tenant="acme")
    keyfiles.create(tmp_path / "a.pub", key.public_half())
    assert keyfiles.read(tmp_path / "a.pub") == KeyFile("caller", "acme", key.public)
    assert key.private is not None
    assert key.private.hex() not in (tmp_path / "a.pub").read_text()


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    first = keyfiles.generate("root", tenant="*")
    keyfiles.create(tmp_path / "root.key", first)
    with pytest.raises(KeyFileError, match="not overwritten"):
        keyfiles.create(tmp_path / "root.key", keyfiles.generate("root", tenant="*"))
    assert keyfiles.read(tmp_path / "root.key") == first
    assert len(list(tmp_path.iterdir())) == 1


def test_a_private_file_open_to_others_is_refused(tmp_path: Path) -> None:
    keyfiles.create(tmp_path / "a.key", keyfiles.generate("time", tenant="*"))
    (tmp_path / "a.key").chmod(0o640)
    with pytest.raises(KeyFileError, match="0640"):
        keyfiles.read(tmp_path / "a.key")


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, other = (keyfiles.generate("command", tenant="*") for _ in range(2))
    text = keyfiles.render(KeyFile("command", "*", one.public, other.private))
    with pytest.raises(KeyFileError, match="does not belong"):
        keyfiles.parse(text, where="a.key")


def test_an_unreadable_key_file_is_not_quoted() -> None:
    key = keyfiles.generate("command", tenant="*")
    assert key.private is not None
    damaged = keyfiles.render(key).replace(key.private.hex(), key.private.hex()[:-2] + "zz")
    with pytest.raises(KeyFileError) as caught:
        keyfiles.parse(damaged, where="a.key")
    assert key.private.hex()[:-2] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_does_not_print_its_private_half() -> None:
    key = keyfiles.generate("command", tenant="*")
    assert key.private is not None
    assert key.private.hex() not in repr(key)
    assert repr(key.private) not in repr(key)


def test_a_vault_key_signs_nothing() -> None:
    with pytest.raises(KeyFileError):
        keyfiles.generate("vault", tenant="*").signing_key()
