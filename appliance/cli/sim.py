"""`imageport sim azure`: run a strict simulator in the foreground until it is stopped; prints one JSON line.

Holds only the arguments; the simulator is `appliance.sim`.
"""

import argparse
import asyncio
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from appliance.sim.faults import FaultPlan

EXIT_OK, EXIT_NO_INPUT, EXIT_UNAVAILABLE, EXIT_CONFIG = 0, 66, 69, 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    azure = kinds.add_parser("azure", help="page blobs, managed disks and their control plane")
    azure.add_argument(
        "--listen", default="127.0.0.1:10000", metavar="HOST:PORT", help="port 0 takes a free one"
    )
    azure.add_argument("--faults", type=Path, metavar="FILE", help="what goes wrong, as TOML")
    azure.add_argument(
        "--state", type=Path, metavar="DIR", help="keep blobs and disks over restarts"
    )
    azure.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain"
    )
    azure.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert")
    azure.add_argument(
        "--public-url", default="", metavar="URL", help="address that clients use, if another"
    )
    azure.add_argument(
        "--disk-domain", default="", metavar="NAME", help="put disks on hosts md-x.NAME"
    )
    azure.add_argument(
        "--resource-group", action="append", metavar="NAME", help="group that exists (repeatable)"
    )
    azure.add_argument(
        "--lro-seconds", type=float, default=0.5, metavar="S", help="how long disk operations take"
    )
    azure.add_argument(
        "--retry-after", type=int, default=1, metavar="S", help="what running operations answer"
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdigit():
        return _fail(EXIT_CONFIG, f"--listen {args.listen!r}: expected HOST:PORT")
    try:
        plan = _plan(args.faults)
        tls = _tls(args.tls_cert, args.tls_key)
    except FileNotFoundError as err:
        return _fail(EXIT_NO_INPUT, f"{err.filename}: no such file")
    except (ValueError, ssl.SSLError) as err:
        return _fail(EXIT_CONFIG, str(err))
    try:
        asyncio.run(_serve(args, host.strip("[]"), int(port), plan, tls))
    except OSError as err:
        return _fail(EXIT_UNAVAILABLE, f"cannot listen on {args.listen}: {err.strerror or err}")
    return EXIT_OK


def _plan(path: Path | None) -> "FaultPlan":
    from appliance.sim.faults import FaultPlan  # noqa: PLC0415 (imported when used: start-up time)

    if path is None:
        return FaultPlan()
    try:
        return FaultPlan.from_toml(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("--tls-cert and --tls-key belong together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def _serve(
    args: argparse.Namespace, host: str, port: int, plan: "FaultPlan", tls: ssl.SSLContext | None
) -> None:
    from appliance.sim.azure.app import RESOURCE_GROUP, AzureSim  # noqa: PLC0415 (start-up time)

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AzureSim(
        state_dir=args.state,
        faults=plan,
        host=host,
        port=port,
        tls=tls,
        public_url=args.public_url.rstrip("/"),
        disk_domain=args.disk_domain,
        lro_seconds=args.lro_seconds,
        retry_after=args.retry_after,
        resource_groups=tuple(args.resource_group or (RESOURCE_GROUP,)),
    ) as sim:
        sys.stdout.write(msgspec.json.encode(sim.describe()).decode() + "\n")
        sys.stdout.flush()
        await stopped.wait()


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"imageport sim: {message}\n")
    return code
