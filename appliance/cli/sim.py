"""`imageport sim azure|aws|gcp|all`: run strict simulators in the foreground until it is stopped; prints one JSON line.

Holds only the arguments; the simulator is `appliance.sim`.
"""

import argparse
import asyncio
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.exits import BadUsage, CliError, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import number, seconds
from appliance.sim.aws.app import REGION, AwsSim
from appliance.sim.azure.app import RESOURCE_GROUP, AzureSim
from appliance.sim.base import Simulator
from appliance.sim.faults import FaultPlan
from appliance.sim.gcp.app import BUCKET, GcpSim

PORT_MOST = 65535
LISTEN = "127.0.0.1:10000"
_SCHEMAS = {"azure": "sim-azure/1", "aws": "sim-aws/1", "gcp": "sim-gcp/1", "all": "sim-all/1"}


class SimFileMissing(CliError):
    """A file that the command names is not there or cannot be read."""

    code = "sim.file-missing"
    exit_code = Exit.NO_INPUT
    http_status = 404
    fix = "Check the path, and that this user may read the file."


class SimConfigInvalid(CliError):
    """The fault plan, the certificate or its key cannot be used."""

    code = "sim.config-invalid"
    exit_code = Exit.CONFIG
    http_status = 422
    fix = "Correct the file that the message names; appliance/sim/faults.py shows a fault plan."


class SimCannotStart(CliError):
    """The simulator cannot listen where it was told to, or not use its state directory."""

    code = "sim.cannot-start"
    exit_code = Exit.UNAVAILABLE
    http_status = 503
    fix = "Choose another --listen address (port 0 takes a free one) or --state directory."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _azure(kinds)
    _aws(kinds)
    _gcp(kinds)
    both = add_verb(
        kinds,
        "all",
        "every cloud, on ports one after the other, until SIGTERM; prints one JSON line",
        "imageport sim all --listen 127.0.0.1:10000 --state sims",
    )
    _common(both, "every simulator in a folder of its own")


def _common(parser: argparse.ArgumentParser, keeps: str) -> None:
    parser.add_argument(
        "--listen",
        default=LISTEN,
        metavar="HOST:PORT",
        help=f"port 0 takes a free one (default: {LISTEN})",
    )
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="what goes wrong, as TOML (appliance/sim/faults.py shows one)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help=f"keep {keeps} over restarts (default: forgotten)",
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert")
    parser.add_argument(
        "--lro-seconds",
        type=seconds(0),
        default=0.5,
        metavar="S",
        help="seconds that the control plane's operations take (default: 0.5)",
    )


def _public_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--public-url",
        default="",
        metavar="URL",
        help="address that clients use (default: --listen)",
    )


def _azure(kinds: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    azure = add_verb(
        kinds,
        "azure",
        "page blobs, managed disks and their control plane, until SIGTERM; prints one JSON line",
        "imageport sim azure --state azure-state | tee sim.json",
        "imageport sim azure --listen 127.0.0.1:0 --faults faults.toml",
    )
    _common(azure, "blobs and disks")
    _public_url(azure)
    azure.add_argument(
        "--disk-domain",
        default="",
        metavar="NAME",
        help="put disks on hosts md-x.NAME (default: on --listen)",
    )
    azure.add_argument(
        "--resource-group",
        action="append",
        metavar="NAME",
        help=f"group that exists, repeatable (default: {RESOURCE_GROUP})",
    )
    azure.add_argument(
        "--retry-after",
        type=number(0, 3600),
        default=1,
        metavar="S",
        help="seconds in Retry-After of a running operation (default: 1)",
    )


def _aws(kinds: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    aws = add_verb(
        kinds,
        "aws",
        "EBS snapshots, AMIs and instances, STS, until SIGTERM; prints one JSON line",
        "imageport sim aws --state aws-state | tee sim.json",
    )
    _common(aws, "snapshots and images")
    _public_url(aws)
    aws.add_argument(
        "--region", default=REGION, metavar="NAME", help=f"the region (default: {REGION})"
    )
    aws.add_argument(
        "--unseen-seconds",
        type=seconds(0),
        default=0.0,
        metavar="S",
        help="seconds in which a new snapshot does not exist for its blocks (default: 0)",
    )


def _gcp(kinds: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    gcp = add_verb(
        kinds,
        "gcp",
        "buckets, images and tokens, until SIGTERM; prints one JSON line",
        "imageport sim gcp --state gcp-state | tee sim.json",
    )
    _common(gcp, "objects and images")
    _public_url(gcp)
    gcp.add_argument(
        "--bucket",
        action="append",
        metavar="NAME",
        help=f"bucket that exists, repeatable (default: {BUCKET})",
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    sims = _sims(args)
    try:
        asyncio.run(_serve(args.kind, sims))
    except OSError as err:
        raise SimCannotStart(f"simulator on {args.listen}: {err.strerror or err}") from err
    return Exit.OK


def _sims(args: argparse.Namespace) -> dict[str, Simulator]:
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > PORT_MOST:
        raise BadUsage(f"--listen {args.listen!r}: expected HOST:PORT")
    kinds = list(_MAKERS) if args.kind == "all" else [args.kind]
    made = {}
    for place, kind in enumerate(kinds):
        state = args.state / kind if args.state and args.kind == "all" else args.state
        served = {
            "state_dir": state,
            "faults": _plan(args.faults),
            "host": host.strip("[]"),
            "port": int(port) + place if int(port) else 0,
            "tls": _tls(args.tls_cert, args.tls_key),
            "public_url": getattr(args, "public_url", "").rstrip("/"),
        }
        made[kind] = _MAKERS[kind](args, served)
    return made


def _make_azure(args: argparse.Namespace, served: dict[str, Any]) -> Simulator:
    return AzureSim(
        disk_domain=getattr(args, "disk_domain", ""),
        resource_groups=tuple(getattr(args, "resource_group", None) or (RESOURCE_GROUP,)),
        lro_seconds=args.lro_seconds,
        retry_after=getattr(args, "retry_after", 1),
        **served,
    )


def _make_aws(args: argparse.Namespace, served: dict[str, Any]) -> Simulator:
    return AwsSim(
        region=getattr(args, "region", REGION),
        unseen_s=getattr(args, "unseen_seconds", 0.0),
        complete_s=args.lro_seconds,
        task_s=args.lro_seconds,
        **served,
    )


def _make_gcp(args: argparse.Namespace, served: dict[str, Any]) -> Simulator:
    buckets = tuple(getattr(args, "bucket", None) or (BUCKET,))
    return GcpSim(buckets=buckets, lro_seconds=args.lro_seconds, **served)


_MAKERS: dict[str, Callable[[argparse.Namespace, dict[str, Any]], Simulator]] = {
    "azure": _make_azure,
    "aws": _make_aws,
    "gcp": _make_gcp,
}


def _plan(path: Path | None) -> FaultPlan:
    if path is None:
        return FaultPlan()
    try:
        return FaultPlan.from_toml(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise SimFileMissing(f"--faults {path}: {err.strerror}") from err
    except ValueError as err:
        raise SimConfigInvalid(f"--faults {path}: {err}") from err


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise BadUsage("--tls-cert and --tls-key belong together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as err:  # an OSError too
        raise SimConfigInvalid(f"--tls-cert {certificate}, --tls-key {key}: {err.reason}") from err
    except OSError as err:
        raise SimFileMissing(
            f"--tls-cert {certificate} or --tls-key {key}: {err.strerror}"
        ) from err
    return context


async def _serve(kind: str, sims: dict[str, Simulator]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    async with AsyncExitStack() as stack:
        for sim in sims.values():
            await stack.enter_async_context(sim)
        told = {name: sim.describe() for name, sim in sims.items()}
        output.answer_json(_SCHEMAS[kind], told if kind == "all" else told[kind])
        output.flush()
        await stopped.wait()
