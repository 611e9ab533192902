"""A spec's [source.credential] or [target.credential]: which keys it may hold; secrets from their files. Sends nothing.

| kind | keys |
|---|---|
| smb | username, password_file; domain if the account has one |
| azure-page-blob | account_key_file, or sas_file, or what azure-disk takes |
| azure-disk | tenant_id, client_id, client_secret_file or certificate_file or workload_identity; or managed_identity |
| aws-snapshot, aws-s3 | access_key_id, secret_access_key_file (+ session_token_file), or profile, |
| | or instance_role = "true"; |
| | each with role_arn (+ external_id) if it assumes a role |
| gcp-image | service_account_key_file, or appliance_credential, or instance = "true" |

`X_file` names a file (from the spec's folder, or `-` for standard input) whose content is the secret X.
Every key is held to this list before a file is read: what is sealed is seen by nobody until the appliance opens it.
"""

from pathlib import Path
from typing import Any

from appliance.cli.inputs import STDIN, others_may_read, read_text
from appliance.cli.speckeys import BadSpec, check_names

PUBLIC = (
    "username", "domain", "tenant_id", "client_id", "access_key_id", "profile", "instance_role",
    "managed_identity", "workload_identity", "role_arn", "external_id", "appliance_credential", "instance",
)  # fmt: skip
SECRETS = (
    "password_file", "account_key_file", "sas_file", "client_secret_file", "secret_access_key_file",
    "session_token_file", "service_account_key_file", "certificate_file",
)  # fmt: skip
HIDDEN = "[secret]"

_ENTRA = (
    frozenset({"tenant_id", "client_id", "client_secret_file"}),
    frozenset({"tenant_id", "client_id", "certificate_file"}),
    frozenset({"tenant_id", "client_id", "workload_identity"}),
    frozenset({"managed_identity"}),
)
_AWS_KEYS = frozenset({"access_key_id", "secret_access_key_file"})
_AWS = (
    _AWS_KEYS,
    _AWS_KEYS | {"session_token_file"},
    frozenset({"profile"}),
    frozenset({"instance_role"}),
)
_AWS_SETS = tuple(
    base | role
    for base in _AWS
    for role in (
        frozenset[str](),
        frozenset({"role_arn"}),
        frozenset({"role_arn", "external_id"}),
    )
)
_ACCEPTED = {
    "smb": (
        frozenset({"username", "password_file"}),
        frozenset({"username", "password_file", "domain"}),
    ),
    "azure-page-blob": (frozenset({"account_key_file"}), frozenset({"sas_file"}), *_ENTRA),
    "azure-disk": _ENTRA,
    "aws-snapshot": _AWS_SETS,
    "aws-s3": _AWS_SETS,
    "gcp-image": (
        frozenset({"service_account_key_file"}),
        frozenset({"appliance_credential"}),
        frozenset({"instance"}),
    ),
}


def open_credential(value: object, *, kind: str, place: str, folder: Path) -> dict[str, str]:
    """Return the credential with the secrets out of their files.

    Args:
        value: The parsed table.
        kind: Kind of the source or target that it belongs to.
        place: "source" or "target".
        folder: Where relative names of secret files count from.

    Raises:
        BadSpec: An unknown, missing or contradictory key, a secret written out, a file that cannot be used.
        NoInput: A file that cannot be read.
    """
    where = f"[{place}.credential]"
    if kind not in _ACCEPTED:
        msg = f"[{place}] of kind {kind} takes no credential"
        raise BadSpec(msg)
    if not isinstance(value, dict):
        msg = f"{where} is no table"
        raise BadSpec(msg)
    _check(value, kind, where)
    return {
        key.removesuffix("_file"): _secret(f"{where} {key}", text, folder)
        if key in SECRETS
        else text
        for key, text in value.items()
    }


def hidden(credential: dict[str, Any]) -> dict[str, Any]:
    """Return a copy to show: only what is known to be public stays."""
    return {key: text if key in PUBLIC else HIDDEN for key, text in credential.items()}


def _check(table: dict[str, Any], kind: str, where: str) -> None:
    accepted = _ACCEPTED[kind]
    for key in table:
        if f"{key}_file" in SECRETS:
            msg = f"{where} {key} is written out; secrets are files: {key}_file"
            raise BadSpec(msg)
    known = [key for key in (*PUBLIC, *SECRETS) if any(key in keys for keys in accepted)]
    check_names(table, known, where)
    for key, text in table.items():
        if not isinstance(text, str) or not text:
            msg = f"{where} {key} is no text"
            raise BadSpec(msg)
    if table.keys() not in accepted:
        expected = ", or ".join(
            " + ".join(key for key in known if key in keys) for keys in accepted
        )
        msg = f"{where} holds {', '.join(table) or 'nothing'}; expected {expected}"
        raise BadSpec(msg)


def _secret(key: str, name: str, folder: Path) -> str:
    path = Path(STDIN) if name == STDIN else folder / name
    text = read_text(path, key)
    if not text.strip():
        msg = f"{key} {path} is empty"
        raise BadSpec(msg, path=str(path))
    if name != STDIN and others_may_read(path):
        msg = f"{key} {path} can be read by others; run chmod 600 on it"
        raise BadSpec(msg, path=str(path))
    return text.strip("\r\n")
