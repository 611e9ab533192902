"""client.toml: found in its places, its paths from its own folder, its faults named."""

from pathlib import Path

import pytest
from yarl import URL

from appliance.cli.clientconfig import ClientConfigError, load_client
from appliance.controlplane import create_control_plane


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
    for name in ("client.toml", "operator.token", "caller.key", "vault.pub", "root.pub"):
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
        ('tennant = "acme"', "did you mean tenant"),
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
    with pytest.raises(ClientConfigError, match=r"caller_key_file: .*caller\.key"):
        load_client(plane / "client.toml", home=tmp_path)


def changed(plane: Path, extra: str) -> Path:
    path = plane / "client.toml"
    path.write_text(path.read_text() + extra)
    return path


def test_the_proxys_password_comes_from_a_file(plane: Path, tmp_path: Path) -> None:
    secret(plane / "proxy.secret", "us@er:let:me in/?\n")
    extra = 'proxy = "http://gate.example:3128"\nproxy_credentials_file = "proxy.secret"\n'
    client = load_client(changed(plane, extra), home=tmp_path)
    url = URL(client.proxy or "")
    assert (url.user, url.password) == ("us@er", "let:me in/?")
    assert (url.host, url.port) == ("gate.example", 3128)
    assert "let" not in repr(client)


@pytest.mark.parametrize(
    ("name", "mode", "text", "message"),
    [
        ("proxy.secret", 0o644, "user:hunter2", "others may read the proxy's credentials"),
        ("proxy.secret", 0o600, "hunter2", "not of the form user:password"),
        ("operator.token", 0o640, "hunter2", "others may read the API key"),
        ("operator.token", 0o600, "hunter2 hunter3", "does not hold one API key"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_named_and_not_shown(
    plane: Path, tmp_path: Path, name: str, mode: int, text: str, message: str
) -> None:
    secret(plane / "proxy.secret", "user:word")
    secret(plane / name, text).chmod(mode)
    extra = 'proxy = "http://gate.example:3128"\nproxy_credentials_file = "proxy.secret"\n'
    with pytest.raises(ClientConfigError, match=message) as caught:
        load_client(changed(plane, extra), home=tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_password_in_the_proxys_url_is_refused_and_not_shown(plane: Path, tmp_path: Path) -> None:
    with pytest.raises(ClientConfigError, match="proxy") as caught:
        load_client(changed(plane, 'proxy = "http://user:hunter2@gate:3128"\n'), home=tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_root_key_is_what_results_are_verified_from(plane: Path, tmp_path: Path) -> None:
    trust = load_client(plane / "client.toml", home=tmp_path).trust()
    assert trust is not None
    assert (trust.tenant, len(trust.root), trust.folder) == ("acme", 32, plane / "records")


def test_a_root_that_is_another_key_is_refused(plane: Path, tmp_path: Path) -> None:
    (plane / "root.pub").write_bytes((plane / "caller.pub").read_bytes())
    with pytest.raises(ClientConfigError, match="holds a caller key"):
        load_client(plane / "client.toml", home=tmp_path)


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path
