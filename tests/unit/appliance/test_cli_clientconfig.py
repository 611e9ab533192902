"""client.toml: found in its places, its paths from its own folder, its faults named."""

from pathlib import Path

import pytest

from appliance.cli.clientconfig import ClientConfigError, load_client
from appliance.controlplane import create_control_plane
from appliance.keyfiles import KeyFileError


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    create_control_plane(tmp_path / "cp", tenant="acme", now_ms=1_800_000_000_000)
    return tmp_path / "cp"


def test_a_control_planes_own_file_works_as_it_is(plane: Path, tmp_path: Path) -> None:
    client = load_client(plane / "client.toml", home=tmp_path)
    assert client.tenant == "acme"
    assert client.url == "http://127.0.0.1:8480"
    assert client.api_key.startswith("ipk-")
    assert client.caller is not None
    assert client.vault_key is not None
    assert client.api_key not in repr(client)


def test_the_persons_own_file_is_found(plane: Path, tmp_path: Path) -> None:
    place = tmp_path / "home/.config/imageport"
    place.mkdir(parents=True)
    for name in ("client.toml", "operator.token", "caller.key", "vault.pub"):
        (place / name).write_bytes((plane / name).read_bytes())
        (place / name).chmod(0o600)
    assert load_client(None, home=tmp_path / "home").tenant == "acme"


def test_none_at_all_is_said_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(ClientConfigError, match="neither"):
        load_client(None, home=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url = 3", "url"),
        ('url = "http://x"\ntenant = "a"', "api_key_file"),
        ('url = "http://x"\ntenant = "a"\napi_key_file = "t"\nextra = 1', "extra"),
        ('url = "http://x"\ntenant = "a"\napi_key_file = "gone"', "cannot be read"),
        ("url = ", "Invalid value"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(ClientConfigError, match=message):
        load_client(path, home=tmp_path)


def test_a_key_file_that_is_gone_is_named(plane: Path, tmp_path: Path) -> None:
    (plane / "caller.key").unlink()
    with pytest.raises(KeyFileError, match=r"caller\.key"):
        load_client(plane / "client.toml", home=tmp_path)
