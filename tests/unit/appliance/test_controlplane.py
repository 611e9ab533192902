"""The folder of a small control plane: it may have any name, and may be moved."""

from pathlib import Path

import pytest

from appliance.cli.clientconfig import load_client
from appliance.controlplane import create_control_plane
from relay.config import load as load_relay
from relay.signer.config import load as load_signer


@pytest.mark.parametrize("name", ["plain", 'with "quotes"', "back\\slash", "Größe 😀"])
def test_a_folder_of_any_name_works_and_can_be_moved(name: str, tmp_path: Path) -> None:
    create_control_plane(tmp_path / "first", tenant="acme", now_ms=1_800_000_000_000)
    folder = tmp_path / name
    (tmp_path / "first").rename(folder)
    relay = load_relay((folder / "relay.toml",), {})
    signer = load_signer(folder / "signer.toml")
    assert load_client(folder / "client.toml", home=tmp_path).tenant == "acme"
    assert Path(relay.data_dir).parent == folder
    named = (signer.keys_dir, signer.root, signer.manifest, signer.relay.token_file)
    assert all(Path(path).exists() for path in named)
    assert {Path(signer.state_dir).parent, Path(signer.socket).parent} == {folder}


def test_no_file_says_where_it_was_made(tmp_path: Path) -> None:
    create_control_plane(tmp_path / "cp", tenant="acme", now_ms=1_800_000_000_000)
    files = [path for path in (tmp_path / "cp").rglob("*") if path.suffix == ".toml"]
    assert len(files) == 4
    assert [path.name for path in files if str(tmp_path) in path.read_text()] == []
