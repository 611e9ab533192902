"""Also the contract of the key file's format: `appliance.keyfiles` writes it, the signer reads it with its own code."""

from pathlib import Path

import pytest

from appliance import keyfiles
from protocol.keys import KeyRing
from protocol.messages import Kind, Role
from protocol.signed import SigningKey, sign
from relay.signer.errors import BadConfig, NoKey, RootKeyOnline
from relay.signer.keys import SignerKeys, load_keys, load_root
from tests.support.signer_device import TENANT
from tests.support.signer_kit import START_MS, manifest_of

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for role in ("command", "time", "record", "vault"):
        keyfiles.create(tmp_path / f"{role}.key", keyfiles.generate(role, tenant="*"))
    return tmp_path


def test_what_the_command_writes_the_signer_reads(folder: Path) -> None:
    keys = load_keys(folder)
    written = {role: keyfiles.read(folder / f"{role}.key") for role in ("command", "vault")}
    assert keys.signing[written["command"].public].seed == written["command"].private
    assert [key.public for key in keys.vault] == [written["vault"].public]


def test_a_root_key_among_them_stops_the_start(folder: Path) -> None:
    keyfiles.create(folder / "root.key", keyfiles.generate("root", tenant="*"))
    with pytest.raises(RootKeyOnline):
        load_keys(folder)


def test_a_private_root_key_given_as_the_public_one_stops_the_start(folder: Path) -> None:
    root = keyfiles.generate("root", tenant="*")
    keyfiles.create(folder / "a", root)
    keyfiles.create(folder / "b", root.public_half())
    with pytest.raises(RootKeyOnline):
        load_root(folder / "a")
    assert load_root(folder / "b") == root.public


@pytest.mark.parametrize("role", ["command", "time", "record", "vault"])
def test_a_missing_role_is_named(folder: Path, role: str) -> None:
    (folder / f"{role}.key").unlink()
    with pytest.raises(BadConfig, match=role):
        load_keys(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_open_to_others_stops_the_start(folder: Path, mode: int) -> None:
    (folder / "time.key").chmod(mode)
    with pytest.raises(BadConfig, match=f"{mode:04o}"):
        load_keys(folder)


@pytest.mark.parametrize("text", ["", "format = 1", "\xff", "x" * 9000], ids=len)
def test_a_file_that_is_no_key_file_is_named_not_quoted(folder: Path, text: str) -> None:
    (folder / "time.key").write_text(text, encoding="latin-1")
    with pytest.raises(BadConfig, match=r"time\.key") as caught:
        load_keys(folder)
    assert "xxxx" not in str(caught.value)


def test_private_keys_are_not_printed(folder: Path) -> None:
    keys = load_keys(folder)
    seeds = [key.seed for key in keys.signing.values()]
    assert not any(seed.hex() in repr(keys) or repr(seed) in repr(keys) for seed in seeds)


# --- choosing ---


def _ring(signing: dict[str, SigningKey], **options: object) -> KeyRing:
    root = SigningKey.generate()
    manifest = manifest_of(signing, serial=1, **options)  # type: ignore[arg-type]
    return KeyRing.open(sign(Kind.MANIFEST, manifest, root), root=root.public)


def _choose(signing: dict[str, SigningKey], ring: KeyRing, *, now: int = START_MS) -> bytes:
    keys = SignerKeys({key.public: key for key in signing.values()}, ())
    return keys.choose(ring, Role.COMMAND, tenant=TENANT, now=now).key.public


def test_a_key_of_the_role_that_is_not_revoked_is_chosen() -> None:
    signing = {name: SigningKey.generate() for name in ("command", "command-2", "time")}
    ring = _ring(signing, revoked=("command",))
    assert _choose(signing, ring) == signing["command-2"].public


@pytest.mark.parametrize("now", [START_MS - DAY_MS, START_MS + 366 * DAY_MS])
def test_a_key_outside_of_its_validity_signs_nothing(now: int) -> None:
    signing = {"command": SigningKey.generate()}
    with pytest.raises(NoKey):
        _choose(signing, _ring(signing), now=now)


def test_a_key_that_we_do_not_hold_signs_nothing() -> None:
    listed, held = {"command": SigningKey.generate()}, {"command": SigningKey.generate()}
    with pytest.raises(NoKey):
        _choose(held, _ring(listed))
