"""Takes secrets out of texts that leave the appliance: by look, by key, and by the values that it holds.

agent.log's processor knows the shapes of what the agent itself writes; a log file from elsewhere, or an error text,
may hold others. What is known to be secret here is hidden in every form in which keys are commonly printed.
"""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path

from agent.config import AgentConfig
from agent.identity import FOLDER
from agent.log import clean_text, redact
from agent.secrets import HIDDEN

MAX_SECRET = 64 * 1024
LEAST = 6
"""Shorter values would hide half of the text with them; a password this short is the bigger problem."""

_ASSIGNED = re.compile(
    r"""(?ix) ( (?: password | passwd | passphrase | secret | token | api[_-]?key | account[_-]?key
        | credentials? | authorization | \bsas ) ["']? \s* [=:] \s* )
        ( "[^"]*" | '[^']*' | (?: bearer | basic | sharedkey ) \s+ \S+ | [^\s,;&}\]]+ )"""
)
_ENROLMENT_TOKEN = re.compile(r"\b([\w-]{1,64}\.)[\w-]{43}(\.[a-z2-7]{52})\b")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)


class Scrubber:
    """Knows the secrets of one appliance."""

    def __init__(self, known: Iterable[str]) -> None:
        """Take the values to hide wherever they stand."""
        self._known = sorted(
            {value for value in known if len(value) >= LEAST}, key=len, reverse=True
        )

    def text(self, text: str) -> str:
        """Return free text without secrets."""
        text = self.without_private_keys(text)
        text = _ENROLMENT_TOKEN.sub(rf"\1{HIDDEN}\2", text)
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", clean_text(text))
        return self._without_known(text)

    def without_private_keys(self, text: str) -> str:
        """Return text without PEM private keys, also cut ones; before it is split into lines."""
        return _PRIVATE_KEY.sub(HIDDEN, text)

    def json(self, value: object) -> str:
        """Return a value as JSON without secrets."""
        clean = redact(None, "", {"value": value})["value"]
        text = json.dumps(clean, indent=2, sort_keys=True, default=str, ensure_ascii=False)
        return self._without_known(text) + "\n"

    def log_line(self, line: str) -> str:
        """Return a line of a log without secrets; JSON lines keep their form."""
        try:
            event = json.loads(line)
        except ValueError:
            return self.text(line)
        if not isinstance(event, dict):
            return self.text(line)
        clean = {key: self._value(value) for key, value in redact(None, "", event).items()}
        return self._without_known(json.dumps(clean, ensure_ascii=False))

    def _value(self, value: object) -> object:
        return self.text(value) if isinstance(value, str) else value

    def _without_known(self, text: str) -> str:
        for value in self._known:
            text = text.replace(value, HIDDEN)
        return text


def known_secrets(config: AgentConfig) -> set[str]:
    """Return every secret in this appliance's files, in the forms in which it might be printed."""
    sections = (config.relay, config.uploads)
    named = [section.proxy_credentials_file for section in sections]
    paths = [*_key_files(config.state / FOLDER), *(Path(name) for name in named if name)]
    return {form for path in paths for form in _forms(path)}


def _key_files(folder: Path) -> list[Path]:
    try:
        return list(folder.glob("*.key"))
    except PermissionError:  # then nothing of it can be in what we collect
        return []


def _forms(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET)
    except OSError:  # the same
        return set()
    forms = {raw.hex(), raw.hex().upper(), repr(raw)[2:-1]}
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        forms |= {encoded.decode(), encoded.decode().rstrip("=")}
    text = raw.decode("utf-8", errors="replace").strip()
    parts = {text, text.partition(":")[2]}
    return forms | parts | {json.dumps(part, ensure_ascii=False)[1:-1] for part in parts}
