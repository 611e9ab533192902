"""Kinds of shares are named once and imported only when used."""

import subprocess
import sys

import pytest

from agent.shares.errors import UnknownShareKind
from agent.shares.registry import open_share


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(UnknownShareKind, match="local, smb"):
        open_share("ftp")


def test_the_registry_itself_imports_no_plug_in() -> None:
    code = "import sys, agent.shares; sys.exit('smbprotocol' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
