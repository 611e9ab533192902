"""A whole house of real processes for e2e and fault tests: relay, signer and agent, as the README starts them.

    with Stack(tmp_path) as stack:
        stack.start_all()
        job = stack.submit(stack.local_job("a.raw", "golden"))
        assert stack.wait(job)["state"] == "succeeded"

Each process can be killed (SIGKILL) and started again by name; their databases can be copied aside and put back.
"""

import asyncio
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from appliance.cli.clientconfig import load_client
from appliance.controlplane import create_control_plane
from appliance.demo.processes import DemoFailed, Processes, imageport, run
from appliance.demo.settings import free_port
from relay.client import RelayClient
from relay.errors import ClientError
from tests.support.proxies import Authority

T = TypeVar("T")

TENANT = "acme"
APPLIANCE = "site-1"
START_S = 60.0
JOB_S = 120.0
NAMES = ("relay", "signer", "agent")


@dataclass(frozen=True)
class Way:
    """How the relay is served and reached, where it is not plain HTTP on loopback.

    Attributes:
        authority: Whose certificate the relay shows; the signer, which dials directly, trusts it.
        host: Name by which agent and client know the relay.
        ca_file: Whom agent and client trust.
        proxy: Their proxy, for uploads too.
        login: `user:password` for it.
    """

    authority: Authority
    host: str
    ca_file: Path
    proxy: str
    login: str


class Stack:
    """The processes of one test, in one folder."""

    def __init__(
        self, folder: Path, *, endpoints: tuple[str, ...] = ("*",), way: Way | None = None,
        port: int = 0, cloud_ca: Path | None = None,
    ) -> None:  # fmt: skip
        """Make keys and configuration; nothing runs yet."""
        self.folder = folder / "stack"
        self.keys = self.folder / "cp"
        self.share, self.cloud = self.folder / "share", self.folder / "cloud"
        for path in (self.share, self.cloud, self.folder / "logs"):
            path.mkdir(parents=True)
        create_control_plane(self.keys, tenant=TENANT, now_ms=time.time_ns() // 1_000_000)
        self.port, self.way = port or free_port(), way
        direct = f"{'https' if way else 'http'}://127.0.0.1:{self.port}"
        self.url = f"https://{way.host}:{self.port}" if way else direct
        self._rewrite_control_plane(direct)
        self._write_agent(endpoints, cloud_ca)
        self._processes = Processes(self.folder / "logs")
        self._starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._processes.stop_all()

    # --- processes ---

    def start_all(self) -> None:
        """Start relay and signer, register the caller, enrol and start the agent, wait until it is there."""
        self.start("relay")
        self.start("signer")
        socket = self.keys / "signer.sock"
        self._processes.wait_until("the signer's socket", socket.exists, seconds=START_S)
        run(
            imageport(
                "signer",
                "caller",
                "add",
                self.keys / "caller.pub",
                "--tenant",
                TENANT,
                "--socket",
                socket,
            )
        )
        token = run(imageport("token", "new", "--tenant", TENANT, "--socket", socket))
        self._until(lambda: self._enrol(token), "enrolment")
        self.start("agent")
        self.wait_online()

    def start(self, name: str) -> None:
        """Start one process."""
        commands = {
            "relay": imageport("relay", "serve", "--config", self.keys / "relay.toml"),
            "signer": imageport("signer", "serve", "--config", self.keys / "signer.toml"),
            "agent": imageport("agent", "run", "--config", self.folder / "agent.toml"),
        }
        self._starts += 1
        process = self._processes.start(f"{name}-{self._starts}", commands[name])
        process.name = name

    def kill(self, name: str) -> None:
        """SIGKILL one process: nothing of it runs on."""
        self._end(name, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """SIGTERM one process and wait until it ended."""
        self._end(name, signal.SIGTERM)

    def raise_epoch(self) -> None:
        """Have the signer begin a new epoch."""
        run(imageport("signer", "raise-epoch", APPLIANCE, "--socket", self.keys / "signer.sock"))

    def wait_online(self) -> None:
        """Wait until the relay shows the appliance as connected."""
        self._until(
            lambda: any(a["connected"] for a in self.ask(lambda c: c.appliances())), "the agent"
        )

    def log(self, name: str) -> str:
        """Return everything that a process (all its starts) printed."""
        logs = sorted((self.folder / "logs").glob(f"{name}-*.log"))
        return "".join(path.read_text(errors="replace") for path in logs)

    # --- databases ---

    def database(self, name: str) -> list[Path]:
        """Return the files of a process' database (with WAL)."""
        folders = {
            "relay": self.keys / "relay-data",
            "signer": self.keys / "signer-data",
            "agent": self.folder / "state",
        }
        return [
            path
            for path in folders[name].rglob("*")
            if ".db" in path.name or ".sqlite3" in path.name
        ]

    def save(self, name: str) -> Path:
        """Copy a stopped process' database aside."""
        kept = self.folder / f"saved-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for number, path in enumerate(self.database(name)):
            shutil.copy2(path, kept / f"{number}")
            (kept / f"{number}.where").write_text(str(path))
        return kept

    def restore(self, name: str, kept: Path) -> None:
        """Put a saved database in the place of a stopped process' newer one."""
        for path in self.database(name):
            path.unlink()
        for where in kept.glob("*.where"):
            shutil.copy2(where.with_suffix(""), where.read_text())

    # --- jobs ---

    def local_job(self, path: str, disk: str, **args: Any) -> dict[str, Any]:
        """Return the spec of an upload from the share to the local target."""
        source = {"kind": "local", "name": "disks"}
        target = {"kind": "local", "name": "cloud", "disk": disk}
        return self.job(source, path, target, **args)

    def job(
        self, source: dict[str, Any], path: str, target: dict[str, Any], **args: Any
    ) -> dict[str, Any]:
        """Return the spec of an upload."""
        whole = {"source": source, "path": path, "target": target, **args}
        return {"tenant": TENANT, "appliance": APPLIANCE, "op": "upload", "args": whole}

    def submit(self, spec: dict[str, Any]) -> str:
        """Order a job; return its id."""
        return self.ask(lambda client: client.submit(spec)).id

    def submit_when_possible(self, spec: dict[str, Any]) -> str:
        """Order a job as soon as the control plane takes it: after a restore it first finds out where everybody is."""
        job = ""

        def taken() -> bool:
            nonlocal job
            job = self.submit(spec)
            return True

        self._until(taken, "the signer to take an order", seconds=JOB_S)
        return job

    def show(self, job: str) -> dict[str, Any]:
        """Return a job as the relay shows it now."""
        return self.ask(lambda client: client.job(job))

    def wait(
        self, job: str, *, until: tuple[str, ...] = ("succeeded", "failed", "cancelled", "refused")
    ) -> dict[str, Any]:
        """Wait until a job is in one of these states; asks again over a relay that is away."""
        found: dict[str, Any] = {}

        def there() -> bool:
            nonlocal found
            found = self.show(job)
            return found["state"] in until

        self._until(there, f"job {job} to be {' or '.join(until)}", seconds=JOB_S)
        return found

    def ask(self, question: Callable[[RelayClient], Any]) -> Any:
        """Run one call of the SDK."""

        async def call() -> Any:
            async with self.client() as client:
                return await question(client)

        return asyncio.run(call())

    def client(self) -> RelayClient:
        """Return the SDK, not connected yet."""
        client = load_client(self.keys / "client.toml", home=self.folder)
        return RelayClient(
            client.url,
            api_key=client.api_key,
            caller=client.caller,
            vault_key=client.vault_key,
            ca_file=client.ca_file,
            proxy=client.proxy,
        )

    # --- private ---

    def _enrol(self, token: bytes) -> bool:
        command = imageport(
            "appliance", "enroll", "--relay", self.url, "--token-file", "-",
            "--config", self.folder / "agent.toml", "--name", APPLIANCE,
        )  # fmt: skip
        try:
            run(command, given=token)
        except DemoFailed:
            return False
        return True

    def _until(self, ready: Callable[[], bool], what: str, *, seconds: float = START_S) -> None:
        def quietly() -> bool:
            try:
                return ready()
            except ClientError:
                return False

        self._processes.wait_until(what, quietly, seconds=seconds)

    def _end(self, name: str, number: int) -> None:
        for process in [p for p in self._processes.running if p.name == name]:
            process.child.send_signal(number)
            process.child.wait(START_S)
            self._processes.running.remove(process)

    def _rewrite_control_plane(self, direct: str) -> None:
        """Give relay, signer and client of the ready control plane this test's port and way."""
        listen = f"127.0.0.1:{self.port}"
        way = self.way
        extra = {"relay": "", "signer": "", "client": ""}
        if way:
            (self.keys / "proxy.secret").write_text(f"{way.login}\n")
            (self.keys / "proxy.secret").chmod(0o600)
            tls = f'tls_cert = "{way.authority.cert_file}"\ntls_key = "{way.authority.key_file}"\n'
            extra = {
                "relay": tls,
                "signer": f'ca = "{way.authority.ca_file}"\n',  # [relay] is its last section
                "client": f'ca_file = "{way.ca_file}"\n{self._proxy()}',
            }
        urls = {"relay": "", "signer": direct, "client": self.url}
        for name, more in extra.items():
            path = self.keys / f"{name}.toml"
            text = path.read_text().replace("http://127.0.0.1:8480", urls[name])
            text = text.replace("127.0.0.1:8480", listen)
            path.write_text(more + text if name == "relay" else text + more)

    def _proxy(self) -> str:
        """Return the lines that name the proxy, the same for agent and client."""
        if self.way is None:
            return ""
        secret = self.keys / "proxy.secret"
        return f'proxy = "{self.way.proxy}"\nproxy_credentials_file = "{secret}"\n'

    def _write_agent(self, endpoints: tuple[str, ...], cloud_ca: Path | None) -> None:
        listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
        path = f'ca_file = "{self.way.ca_file}"\n{self._proxy()}' if self.way else ""
        uploads = f'ca_file = "{cloud_ca}"\n' if cloud_ca else path
        text = f"""\
state_dir = "{self.folder / "state"}"
[relay]
url = "{self.url}"
backoff_cap_s = 2.0
{path}[policy]
endpoints = [{listed}]
[limits]
drain_s = 1.0
[shares.local]
disks = "{self.share}"
[targets.local]
cloud = "{self.cloud}"
[uploads]
service_checksum = false
{uploads}"""
        (self.folder / "agent.toml").write_text(text)
