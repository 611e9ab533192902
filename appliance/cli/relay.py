"""`imageport relay serve`: run the relay in the foreground, as its systemd unit does. Configures; decides nothing."""

import argparse
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from relay import app, log
from relay.config import RelayConfig, default_files, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb and its options; each overrides the configuration files."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    serve = add_verb(
        verbs,
        "serve",
        "serve REST, agents and the signer on one port until SIGTERM; options win over files",
        "imageport relay serve --config cp/relay.toml",
        "imageport relay serve --config cp/relay.toml --listen 127.0.0.1:9480 --log-format text",
    )
    system = "/usr/lib and /etc/imageport/relay.toml, then relay.d/*.toml"
    serve.add_argument(
        "--config",
        action="append",
        metavar="F",
        help=f"TOML file; repeatable, the later one wins (default: {system})",
    )
    usual = RelayConfig()
    serve.add_argument(
        "--listen", metavar="H:P", help=f"address and port (default: {usual.listen})"
    )
    serve.add_argument(
        "--data-dir",
        metavar="DIR",
        help=f"folder of database and artifacts (default: {usual.data_dir})",
    )
    serve.add_argument(
        "--store",
        choices=("sqlite", "memory"),
        help=f"memory forgets all at the end (default: {usual.store})",
    )
    serve.add_argument("--tls-cert", metavar="PEM", help="own certificate chain (default: no TLS)")
    serve.add_argument("--tls-key", metavar="PEM", help="private key of --tls-cert")
    serve.add_argument(
        "--behind-proxy",
        action="store_true",
        default=None,
        help="TLS ends at a proxy, which alone can reach the port",
    )
    serve.add_argument(
        "--metrics-listen",
        metavar="H:P",
        help="own address of /metrics, without a key (default: the main port, for role admin)",
    )
    serve.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        metavar="LEVEL",
        help=f"debug, info, warning or error (default: {usual.log_level})",
    )
    serve.add_argument(
        "--log-format",
        choices=("json", "text"),
        help=f"of the log on stderr (default: {usual.log_format})",
    )


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
