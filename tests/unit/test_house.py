"""The house rules that no linter holds: sizes, first lines, READMEs, SDK homes, nothing of a machine in the tree."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("protocol", "imaging", "agent", "relay", "appliance")
_FOLDERS = (*_PACKAGES, "tests", "docs", "scripts", ".ci")
_MAX_LINES = 400

# Which files may import a vendor's SDK; the longest name that fits decides. Simulators are judged by
# the SDKs, so they never use one: only the C code of a checksum, which a table in Python checks.
SDK_HOMES = {
    "azure": ("agent/targets/azure/*.py", "appliance/demo/readback.py", "tests/*"),
    "azure.storage.extensions": ("agent/targets/azure/*.py", "appliance/sim/*", "tests/*"),
    "boto3": ("agent/targets/aws*.py", "tests/*"),
    "botocore": ("agent/targets/aws*.py", "tests/*"),
    "google": ("agent/targets/gcp*.py", "tests/*"),
    "pyVmomi": ("agent/sources/vsphere*.py", "tests/*"),
    "smbclient": ("agent/shares/smb*.py", "tests/*"),
    "smbprotocol": ("agent/shares/smb*.py", "tests/*"),
    "spnego": ("agent/shares/smb*.py", "tests/*"),
}

_ANY_SDK = re.compile("|".join(SDK_HOMES).encode())
_DOCSTRING = re.compile(rb'(?:#.*\n|\s)*r?"""\S')

# Split, so that this file does not find itself.
_MACHINE = re.compile(
    "|".join(
        (
            "/(?:wor" + "k|ro" + "ot|hom" + "e/[a-z]+)/[A-Za-z.]",
            "/tm" + r"p/[A-Za-z]",
            "pypi" + r"\.org",
            "pythonhosted" + r"\.org",
            "registry" + r"\.npmjs",
            "deb" + r"\.debian\.org",
        )
    ).encode()
)


def _files() -> Iterator[Path]:
    yield from (path for path in _ROOT.iterdir() if path.is_file())
    for folder in _FOLDERS:
        for path in (_ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


_FILES = sorted(path.relative_to(_ROOT) for path in _files())
_SOURCES = [path for path in _FILES if path.suffix == ".py"]
_PRODUCT = [path for path in _SOURCES if path.parts[0] in _PACKAGES]
_PAGES = [path for path in _FILES if path.suffix == ".md"]


def _imports(path: Path) -> set[str]:
    """Return the dotted names that a file with an SDK in it imports, also inside functions."""
    source = (_ROOT / path).read_bytes()
    if not _ANY_SDK.search(source):  # parsing all of the tree would take most of the unit tier
        return set()
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _homes(name: str) -> tuple[str, ...] | None:
    """Return where `name` may be imported, None for anything that is no vendor's SDK."""
    known = [sdk for sdk in SDK_HOMES if f"{name}.".startswith(f"{sdk}.")]
    return SDK_HOMES[max(known, key=len)] if known else None


def test_no_source_file_is_longer_than_a_sitting() -> None:
    lines = {str(p): len((_ROOT / p).read_bytes().splitlines()) for p in _SOURCES}
    assert {path: count for path, count in lines.items() if count > _MAX_LINES} == {}


def test_every_module_says_what_it_is() -> None:
    spoken = [p for p in _SOURCES if p.parts[0] != "tests" or p.parts[1] == "support"]
    assert [str(p) for p in spoken if not _DOCSTRING.match((_ROOT / p).read_bytes())] == []


def test_no_file_names_a_machine_or_a_package_index() -> None:
    found = [
        f"{path}: {match.group().decode(errors='replace')}"
        for path in _FILES
        if (match := _MACHINE.search((_ROOT / path).read_bytes()))
    ]
    assert found == []


def test_no_source_is_left_half_done() -> None:
    marks = re.compile("NotImplemented" + "Error|TO" + "DO|FIX" + "ME|XX" + "X")
    found = [str(p) for p in _PRODUCT if marks.search((_ROOT / p).read_text(encoding="utf-8"))]
    assert found == []


def test_vendor_sdks_stay_in_their_plugins() -> None:
    strays = [
        f"{path} imports {name}"
        for path in _SOURCES
        for name in sorted(_imports(path))
        if (homes := _homes(name)) and not any(fnmatch(path.as_posix(), home) for home in homes)
    ]
    assert strays == []


@pytest.mark.parametrize("folder", [*_PACKAGES, "tests"])
def test_each_package_has_a_readme_that_says_where_to_start(folder: str) -> None:
    text = (_ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {folder}\n")
    assert "**Start reading**" in text


@pytest.mark.parametrize("folder", [*_PACKAGES, "tests"])
def test_each_readme_names_files_that_exist(folder: str) -> None:
    text = (_ROOT / folder / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+(?:\.py|/))`", text)
    assert [name for name in named if not (_ROOT / folder / name).exists()] == []


@pytest.mark.parametrize("folder", _PACKAGES)
def test_each_package_is_typed_for_its_users(folder: str) -> None:
    assert (_ROOT / folder / "py.typed").is_file()


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
    broken = [
        f"{page}: {target}"
        for page in _PAGES
        for target in link.findall((_ROOT / page).read_text(encoding="utf-8"))
        if not (_ROOT / page.parent / target).exists()
    ]
    assert broken == []


def test_constraints_pin_names_and_versions_only() -> None:
    lines = (_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", line)] == []
    names = [pin.split("==")[0].lower() for pin in pins]
    assert names == sorted(set(names))
