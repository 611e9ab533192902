"""Read server-sent events (WHATWG HTML 9.2) from bytes as they come. Pure; bounded; ignores what it does not know."""

from dataclasses import dataclass, field

from relay.errors import ClientError

MAX_LINE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event."""

    id: str
    kind: str
    data: str


@dataclass(slots=True)
class EventReader:
    """Feed it bytes, get events. `last_id` is what to send as Last-Event-ID after a cut."""

    last_id: str = ""
    _rest: bytes = b""
    _kind: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete. Raises ClientError for a line without end."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE:
            raise ClientError(f"the event stream has a line of more than {MAX_LINE} bytes")
        found = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                found.append(event)
        return found

    def cut(self) -> None:
        """Forget a half event: the connection ended, the next one begins anew."""
        self._rest, self._kind, self._data = b"", "", []

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id" if value.isascii() and value.isprintable():  # it goes back in a header
                self.last_id = value
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data = "", []
        return ServerEvent(self.last_id, kind, "\n".join(data)) if data else None
