"""`imageport relay serve`: run the relay in the foreground, as its systemd unit does. Configures; decides nothing."""

import argparse
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import Exit
from relay import app, log
from relay.config import default_files, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb and its options; each overrides the configuration files."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    serve = verbs.add_parser("serve", help="serve REST, agents and the signer on one port")
    serve.add_argument("--config", action="append", metavar="F", help="TOML file; may be repeated")
    serve.add_argument("--listen", metavar="H:P", help="address and port (default 127.0.0.1:8480)")
    serve.add_argument("--data-dir", metavar="DIR", help="folder of the database and the artifacts")
    serve.add_argument("--store", choices=("sqlite", "memory"), help="memory forgets at the end")
    serve.add_argument("--tls-cert", metavar="PEM", help="certificate chain")
    serve.add_argument("--tls-key", metavar="PEM", help="its key")
    serve.add_argument(
        "--behind-proxy", action="store_true", default=None, help="TLS ends at a proxy before us"
    )
    serve.add_argument("--metrics-listen", metavar="H:P", help="own address of /metrics")
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    serve.add_argument("--log-format", choices=("json", "text"))


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    files = tuple(Path(name) for name in args.config or ())
    names = (
        "listen", "data_dir", "store", "tls_cert", "tls_key", "behind_proxy", "metrics_listen", "log_level",
        "log_format",
    )  # fmt: skip
    chosen = files or tuple(path for path in default_files() if path.exists())
    config = load(chosen, {name: getattr(args, name) for name in names})
    log.configure(level=config.log_level, as_json=config.log_format == "json")
    app.run(config, ready=lambda port: output.note(f"relay: serving on port {port}"))
    return Exit.OK
