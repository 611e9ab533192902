"""`imageport sim azure`: run a strict simulator in the foreground until it is stopped; prints one JSON line.

Holds only the arguments; the simulator is `appliance.sim`.
"""

import argparse
import asyncio
import signal
import ssl
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import BadUsage, CliError, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import number, seconds
from appliance.sim.azure.app import RESOURCE_GROUP, AzureSim
from appliance.sim.faults import FaultPlan

PORT_MOST = 65535
LISTEN = "127.0.0.1:10000"


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
    azure = add_verb(
        kinds,
        "azure",
        "page blobs, managed disks and their control plane, until SIGTERM; prints one JSON line",
        "imageport sim azure --state azure-state | tee sim.json",
        "imageport sim azure --listen 127.0.0.1:0 --faults faults.toml",
    )
    azure.add_argument(
        "--listen",
        default=LISTEN,
        metavar="HOST:PORT",
        help=f"port 0 takes a free one (default: {LISTEN})",
    )
    azure.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="what goes wrong, as TOML (appliance/sim/faults.py shows one)",
    )
    azure.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep blobs and disks over restarts (default: they are forgotten)",
    )
    azure.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain"
    )
    azure.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert")
    azure.add_argument(
        "--public-url",
        default="",
        metavar="URL",
        help="address that clients use (default: --listen)",
    )
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
        "--lro-seconds",
        type=seconds(0),
        default=0.5,
        metavar="S",
        help="seconds that disk operations take (default: 0.5)",
    )
    azure.add_argument(
        "--retry-after",
        type=number(0, 3600),
        default=1,
        metavar="S",
        help="seconds in Retry-After of a running operation (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > PORT_MOST:
        raise BadUsage(f"--listen {args.listen!r}: expected HOST:PORT")
    sim = AzureSim(
        state_dir=args.state,
        faults=_plan(args.faults),
        host=host.strip("[]"),
        port=int(port),
        tls=_tls(args.tls_cert, args.tls_key),
        public_url=args.public_url.rstrip("/"),
        disk_domain=args.disk_domain,
        resource_groups=tuple(args.resource_group or (RESOURCE_GROUP,)),
        lro_seconds=args.lro_seconds,
        retry_after=args.retry_after,
    )
    try:
        asyncio.run(_serve(sim))
    except OSError as err:
        raise SimCannotStart(f"simulator on {args.listen}: {err.strerror or err}") from err
    return Exit.OK


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


async def _serve(sim: AzureSim) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    async with sim:
        output.answer_json("sim-azure/1", sim.describe())
        output.flush()
        await stopped.wait()
