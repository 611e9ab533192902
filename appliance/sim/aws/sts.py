"""StsPlane and ImdsPlane: temporary credentials, from AssumeRole and from the instance metadata service (IMDSv2)."""

import json
import secrets
import uuid

from appliance.sim.aws.access import EXTERNAL_ID, Access
from appliance.sim.aws.ec2 import iso
from appliance.sim.aws.query import Tree, need, read_form, require_known, xml
from appliance.sim.aws.state import Session
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Call, Refusal, Reply

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
METADATA = "/latest/"
ROLE = "imageport"
_SECONDS = (900, 43_200)
_ROLES = "/latest/meta-data/iam/security-credentials/"


class StsPlane:
    """AssumeRole and GetCallerIdentity."""

    def __init__(self, vault: Vault, access: Access) -> None:
        self._vault = vault
        self._access = access

    def operation(self, _call: Call) -> str:
        """Name the operation."""
        return "sts.call"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        body = b"".join(await call.body.read())
        self._access.check(call, body, "sts")
        args = read_form(body)
        action = args.get("Action")
        if action == "AssumeRole":
            self._access.allow("sts:AssumeRole")
            result = self._assume(args, call.now)
        elif action == "GetCallerIdentity":
            account = self._vault.state.identity.account
            arn = f"arn:aws:iam::{account}:user/imageport"
            result = {"Arn": arn, "UserId": "AIDASIMULATED", "Account": account}
        else:
            raise Refusal(400, "InvalidAction", f"The action {action} is not simulated.")
        answer = {
            f"{action}Result": result,
            "ResponseMetadata": {"RequestId": str(uuid.uuid4())},
        }
        text = xml(f"{action}Response", answer)
        text = text.replace(">", f' xmlns="{NAMESPACE}">', 1)
        return Reply(200, {"Content-Type": "text/xml"}, text.encode())

    def _assume(self, args: Tree, now: float) -> Tree:
        require_known(args, {"RoleArn", "RoleSessionName", "ExternalId", "DurationSeconds"})
        least, most = _SECONDS
        seconds = int(args.get("DurationSeconds", 3600))
        if not least <= seconds <= most:
            raise Refusal(400, "ValidationError", f"DurationSeconds {seconds}: {least} to {most}.")
        role = need(args, "RoleArn")
        external = args.get("ExternalId", EXTERNAL_ID)
        if role != self._access.role_arn or external != EXTERNAL_ID:
            message = f"User is not authorized to perform: sts:AssumeRole on resource: {role}"
            raise Refusal(403, "AccessDenied", message)
        key, session = self._access.assume(role, seconds, now)
        name = need(args, "RoleSessionName")
        return {
            "Credentials": {
                "AccessKeyId": key,
                "SecretAccessKey": session.secret_key,
                "SessionToken": session.token,
                "Expiration": iso(session.expires),
            },
            "AssumedRoleUser": {"AssumedRoleId": f"AROASIM:{name}", "Arn": f"{role}/{name}"},
        }

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        error = {"Type": "Sender", "Code": refusal.code, "Message": refusal.message}
        text = xml("ErrorResponse", {"Error": error, "RequestId": str(uuid.uuid4())})
        return Reply(refusal.status, {"Content-Type": "text/xml", **refusal.headers}, text.encode())


class ImdsPlane:
    """The metadata service of an instance whose role is `imageport`; only with a session token."""

    def __init__(self, access: Access, *, seconds: float) -> None:
        self._access = access
        self._seconds = seconds
        self._token = secrets.token_urlsafe(24)

    def operation(self, _call: Call) -> str:
        """Name the operation."""
        return "imds.call"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        if (call.method, call.path) == ("PUT", "/latest/api/token"):
            if not call.header("X-aws-ec2-metadata-token-ttl-seconds"):
                raise Refusal(400, "Bad Request", "no token ttl")
            return Reply(200, {"Content-Type": "text/plain"}, self._token.encode())
        if call.header("X-aws-ec2-metadata-token") != self._token:
            raise Refusal(401, "Unauthorized", "IMDSv2 needs a token")
        if call.path == _ROLES:
            return Reply(200, {"Content-Type": "text/plain"}, ROLE.encode())
        if call.path == _ROLES + ROLE:
            key, session = self._access.assume(ROLE, self._seconds, call.now)
            body = json.dumps(_document(key, session, call.now))
            return Reply(200, {"Content-Type": "application/json"}, body.encode())
        raise Refusal(404, "Not Found", call.path)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into text."""
        return Reply(refusal.status, {"Content-Type": "text/plain"}, refusal.message.encode())


def _document(key: str, session: Session, now: float) -> dict[str, str]:
    return {
        "Code": "Success",
        "LastUpdated": iso(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": key,
        "SecretAccessKey": session.secret_key,
        "Token": session.token,
        "Expiration": iso(session.expires),
    }
