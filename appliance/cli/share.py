"""`imageport share`: look at a share and move files to and from it, without a job. See `sharelist` and `sharecopy`."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.config import load
from agent.shares.smb.malloc import tune_malloc
from agent.shares.smb.ref import SmbShareRef
from agent.shares.smb.share import SmbShare
from agent.stages.plugins import smb_policy
from appliance.cli import agentlog, sharecopy, sharelist
from appliance.doctor.sharespec import read_credential


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for verb in (*sharelist.add_arguments(verbs), *sharecopy.add_arguments(verbs)):
        verb.add_argument(
            "--credential-file",
            type=Path,
            required=True,
            metavar="F",
            help="the account: lines username=, password=, domain= in a file that only you can read",
        )
        verb.add_argument(
            "--config",
            type=Path,
            metavar="F",
            help="the agent's configuration, which may accept less protection of a server"
            " (default: the conf.d folders)",
        )
        verb.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says; 1 if the answer is no."""
    agentlog.speak()
    tune_malloc()
    handler: Callable[[argparse.Namespace, sharelist.Opener], int] = args.handler

    @contextmanager
    def opened(ref: SmbShareRef) -> Iterator[SmbShare]:
        credential = read_credential(args.credential_file)
        share = SmbShare(ref, credential, policy=smb_policy(ref.server, load(args.config).config))
        try:
            yield share
        finally:
            share.close()

    return handler(args, opened)
