"""Verdicts: codes that travel in results, nacks and close frames, each with cause and remedy. Values only.

An error that is raised is a class (`protocol.errors` and the other trees); a verdict is a value that somebody decided
and signed. docs/errors.md lists both.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code says, and what to do about it."""

    cause: str
    fix: str


_BUG = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."
_AGAIN = "Order it again."
_ITSELF = "Nothing: it mends itself."
_REBASED = "Nothing: the signer raises an epoch by itself, and signs again what never arrived."
_WATCH = "If nobody restored a database or copied an appliance, the relay misleads (SECURITY.md)."
_POLICY = "Change the agent's configuration, if the site's owner agrees."

VERDICTS: dict[str, Meaning] = {
    "agent.bug": Meaning("A stage met a defect of ours; the agent itself runs on.", _BUG),
    "appliance.clock-off": Meaning(
        "A warning: the appliance's clock is more than a minute beside signed time. Orders do not mind; Kerberos (5 "
        "minutes), Azure's account keys (15 minutes) and readers of logs do.",
        "Set the clock: `timedatectl set-ntp true`.",
    ),
    "appliance.clone-suspected": Meaning(
        "The appliance returned a link that its last signed time did not carry.",
        "See whether its disk was copied or restored; revoke it and enrol anew what is a copy.",
    ),
    "appliance.equivocation": Meaning(
        "The appliance signed two different results of one command; the first one stands.",
        "See whether its disk was copied; compare both results in the audit log.",
    ),
    "appliance.journal-behind": Meaning(
        "The appliance's journal is an older copy: it accepts, starts and sweeps nothing.", _REBASED
    ),
    "appliance.queue-full": Meaning(
        "1,000 commands wait, or 10,000 results (256 MiB) are not confirmed by the signer.",
        "Wait, cancel what is not needed, and see that the signer is attached to the relay.",
    ),
    "appliance.revoked": Meaning(
        "The appliance's record was revoked.", "Enrol it anew with a new token, if it is wanted."
    ),
    "job.crash-loop": Meaning(
        "Three attempts in a row ended with the agent's process and got nowhere.",
        "See the agent's log for what ends it (memory, watchdog), then retry the job.",
    ),
    "job.not-retryable": Meaning(
        "`retry_of` names a command that is unknown here, not final, succeeded, or was retried.",
        "Retry the last command of the line, or order it anew.",
    ),
    "job.predecessor-cancelled": Meaning("A command that it waited for was cancelled.", _AGAIN),
    "job.predecessor-elsewhere": Meaning(
        "It waits for a command of another appliance, which this release does not do.",
        "Order it when that command has succeeded.",
    ),
    "job.predecessor-failed": Meaning(
        "A command that it waited for failed.", "Retry that one, then order this again."
    ),
    "job.predecessor-refused": Meaning(
        "A command that it waited for was refused.", "See that one's code, then order both again."
    ),
    "job.start-by": Meaning("It could not start before its `start_by`.", _AGAIN),
    "policy.op-forbidden": Meaning(
        "[policy] ops of this appliance does not allow the op.", _POLICY
    ),
    "policy.share-forbidden": Meaning(
        "[policy] share_servers of this appliance does not allow the file server.", _POLICY
    ),
    "policy.share-unknown": Meaning(
        "[shares.local] of this appliance has no folder of that name.", _POLICY
    ),
    "policy.target-forbidden": Meaning(
        "[policy] endpoints or subscriptions of this appliance does not allow the target.", _POLICY
    ),
    "policy.target-unknown": Meaning(
        "[targets.local] of this appliance has no folder of that name.", _POLICY
    ),
    "protocol.bad-args": Meaning(
        "The arguments do not fit the op.", "Correct the spec; the message names the field."
    ),
    "protocol.epoch-ahead": Meaning(
        "The command is of an epoch whose order has not arrived yet.", _ITSELF
    ),
    "protocol.epoch-cas": Meaning(
        "The epoch order was made for another place than the appliance's.", _REBASED
    ),
    "protocol.epoch-old": Meaning("The order is of an epoch that is over.", _ITSELF),
    "protocol.epoch-raised": Meaning(
        "A new epoch began before the command was started.",
        "Order it again, if it still is wanted.",
    ),
    "protocol.expired": Meaning(
        "Its time was over before it could be accepted or started.", _AGAIN
    ),
    "protocol.fork": Meaning(
        "The command continues another history than the appliance's.", f"{_REBASED} {_WATCH}"
    ),
    "protocol.going-away": Meaning("The relay asked the agent to come back later.", _ITSELF),
    "protocol.handshake-timeout": Meaning(
        "The other side did not answer within 10 s of connecting.",
        "See the way to the relay with `imageport doctor relay`.",
    ),
    "protocol.id-reuse": Meaning("Its id was seen before, with other content.", _AGAIN),
    "protocol.manifest-stale": Meaning(
        "Signed time names a newer key manifest than the appliance has: orders wait for it.",
        "If it lasts, push the key manifest to the signer again.",
    ),
    "protocol.seq-reuse": Meaning("Another command had this number.", f"{_REBASED} {_WATCH}"),
    "protocol.start-by-missing": Meaning(
        "A command that waits for others needs a last moment.", "Sign it with `start_by`."
    ),
    "protocol.time-unproven": Meaning(
        "No signed time came in this session yet: orders wait for it.",
        "If it lasts, see that the signer is attached to the relay (`imageport status`).",
    ),
    "protocol.unknown-op": Meaning(
        "The appliance's release does not know the op.", "Update the appliance."
    ),
    "relay.agent-slow": Meaning("The agent did not read what it was sent.", _ITSELF),
    "relay.going-away": Meaning("The relay stops; connections are made anew.", _ITSELF),
    "relay.overload": Meaning("The relay did not take what was sent within 5 s.", _ITSELF),
    "relay.superseded": Meaning(
        "A newer connection of the same appliance or signer took over.",
        "See that one identity runs on one machine only.",
    ),
    "signer.behind": Meaning(
        "The appliance consumed more than this signer ever signed: its database is an older copy.",
        f"{_REBASED} {_WATCH}",
    ),
    "signer.fork": Meaning(
        "The appliance consumed another command than ours under one number.", f"{_REBASED} {_WATCH}"
    ),
    "signer.inventory-wanted": Meaning(
        "A new epoch was ordered; nothing is signed until the appliance says what it holds.",
        "See that the appliance is connected.",
    ),
    "signer.unchecked": Meaning(
        "The signer has just started and the appliance has said nothing since.",
        "See that the appliance is connected, then order again.",
    ),
    "upload.not-verified": Meaning(
        "A warning: the disk was not read back, as the spec asked.", 'Use `verify = "full"`.'
    ),
    "upload.not-marked": Meaning(
        "A warning: the disk failed verification and could not be marked so at the target.",
        "Do not use it, and delete it; the result names it as left behind.",
    ),
    "image.warning": Meaning(
        "A warning: the image is readable, and something in it is unusual.",
        "See the message; make the image anew if its tool can.",
    ),
}


def explained(code: str, message: str) -> dict[str, str]:
    """Return a refusal as a job's report says it: code, what happened and, where it is known, what to do."""
    meaning = VERDICTS.get(code)
    said = {"code": code, "message": message or (meaning.cause if meaning else code)}
    return {**said, "fix": meaning.fix} if meaning else said
