import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import sse
from relay.errors import ClientError
from relay.sse import EventReader, ServerEvent

STREAM = (
    b": open\n\nid: 1\nevent: state\ndata: {}\n\nid: 2\r\ndata: a\r\ndata: b\r\n\r\n: heartbeat\n\n"
)
EVENTS = [ServerEvent("1", "state", "{}"), ServerEvent("2", "message", "a\nb")]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_do_not_depend_on_how_the_bytes_come(cuts: list[int]) -> None:
    reader, found, at = EventReader(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        found += reader.feed(STREAM[at:cut])
        at = cut
    assert found == EVENTS
    assert reader.last_id == "2"


def test_half_an_event_is_forgotten_at_a_cut() -> None:
    reader = EventReader()
    reader.feed(b"id: 7\nevent: state\ndata: hal")
    reader.cut()
    assert reader.feed(b"data: whole\n\n") == [ServerEvent("7", "message", "whole")]


def test_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_LINE", 100)
    with pytest.raises(ClientError):
        EventReader().feed(b"data: " + b"x" * 200)


def test_id_that_no_header_can_carry_is_not_kept() -> None:
    reader = EventReader(last_id="7")
    assert [event.id for event in reader.feed(b"id: 8\rX: y\ndata: a\n\n")] == ["7"]
    reader.feed("id: \u00e4\n\n".encode())
    assert reader.last_id == "7"
