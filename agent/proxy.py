"""The file with a proxy's user and password: read, checked, never logged."""

from pathlib import Path

from agent.config import ConfigError


def read_proxy_credentials(path: str) -> tuple[str, str]:
    """Return (user, password) out of a file that holds `user:password`.

    Raises:
        ConfigError: Unreadable, or of another form; the content is never shown.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        msg = f"proxy_credentials_file {path}: {err}"
        raise ConfigError(msg, path=path) from err
    user, colon, password = text.partition(":")
    if not colon or not user:
        msg = f"{path} is not of the form user:password"
        raise ConfigError(msg, path=path)
    return user, password
