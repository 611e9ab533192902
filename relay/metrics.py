"""What the relay counts and shows at /metrics. Names only; who counts is elsewhere."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


@dataclass(slots=True)
class Metrics:
    """The metrics of one relay process, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    connected: Gauge = field(init=False)
    unverified: Gauge = field(init=False)
    streams: Gauge = field(init=False)
    signers: Gauge = field(init=False)
    closed: Counter = field(init=False)
    cut: Counter = field(init=False)
    statements: Counter = field(init=False)
    commands: Counter = field(init=False)

    def __post_init__(self) -> None:
        reg = self.registry
        self.requests = Counter(
            "relay_http_requests", "REST requests", ["route", "status"], registry=reg
        )
        self.seconds = Histogram(
            "relay_http_seconds", "Time to answer a REST request", ["route"], registry=reg
        )
        self.connected = Gauge("relay_agents", "Verified agent connections", registry=reg)
        self.unverified = Gauge(
            "relay_agents_unverified", "Connections before their hello", registry=reg
        )
        self.streams = Gauge("relay_event_streams", "Open event streams", registry=reg)
        self.signers = Gauge("relay_signers", "Attached signers", registry=reg)
        self.closed = Counter(
            "relay_agent_closed", "Agent connections that the relay ended", ["reason"], registry=reg
        )
        self.cut = Counter(
            "relay_connections_cut", "Connections that took too much", ["reason"], registry=reg
        )
        self.statements = Counter(
            "relay_statements", "Verified statements of agents", ["kind"], registry=reg
        )
        self.commands = Counter("relay_commands", "Commands sent to agents", registry=reg)

    def text(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)
