from pathlib import Path

import pytest

from relay.config import ApiKey, is_loopback, load, split_listen
from relay.errors import ConfigError

KEY = """
[[api_keys]]
id = "portal"
tenant = "acme"
role = "operator"
sha256 = "%s"
""" % ("a" * 64)


@pytest.fixture
def write(tmp_path: Path):
    def make(text: str, name: str = "relay.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def test_later_file_and_option_win(write) -> None:
    first = write('listen = "127.0.0.1:1"\ndrain_s = 3.0\n' + KEY, "10.toml")
    second = write('listen = "127.0.0.1:2"\n', "20.toml")
    config = load((first, second), {"drain_s": None, "store": "memory"})
    assert (config.listen, config.drain_s, config.store) == ("127.0.0.1:2", 3.0, "memory")
    assert config.api_keys == (
        ApiKey(id="portal", tenant="acme", role="operator", sha256="a" * 64),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unknown = 1", "unknown"),
        ("listen = 5", "listen"),
        ('listen = "nowhere"', "listen"),
        ("drain_s = -1", "drain_s"),
        ("= broken", "relay.toml"),
        ('tls_cert = "a.pem"', "belong together"),
        ('listen = "0.0.0.0:80"', "in clear"),
        (KEY.replace('"acme"', '"*"'), "role control"),
        (KEY + KEY, "same id"),
        (KEY + KEY.replace("portal", "other"), "same sha256"),
        (KEY.replace("a" * 64, "topsecret"), "sha256"),
    ],
)
def test_what_is_wrong_is_named(write, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load((write(text),), {})


def test_paths_count_from_the_file_that_names_them(write, tmp_path: Path) -> None:
    file = write('data_dir = "d"\ntls_cert = "c.pem"\ntls_key = "/k.pem"\n')
    config = load((file,), {})
    assert (config.data_dir, config.tls_cert, config.tls_key) == (
        str(tmp_path / "d"),
        str(tmp_path / "c.pem"),
        "/k.pem",
    )
    assert load((file,), {"data_dir": "mine"}).data_dir == "mine"
    assert load((write('tls_cert = ""'),), {}).tls_cert == ""


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load((tmp_path / "gone.toml",), {})


def test_plain_http_is_allowed_where_nobody_else_listens(write) -> None:
    assert load((), {"listen": "[::1]:80"}).listen == "[::1]:80"
    assert load((), {"listen": "0.0.0.0:80", "behind_proxy": True}).behind_proxy
    assert load((), {"listen": "0.0.0.0:443", "tls_cert": "c", "tls_key": "k"}).tls_key == "k"


def test_listen_addresses() -> None:
    assert split_listen("[::1]:80") == ("::1", 80)
    assert split_listen("relay.example:443") == ("relay.example", 443)
    assert [is_loopback(host) for host in ("127.9.9.9", "::1", "localhost", "10.0.0.1", "x")] == [
        True, True, True, False, False,
    ]  # fmt: skip
