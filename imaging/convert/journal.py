"""The journal of a conversion: what of the partial file is durable. Written behind the data that it speaks of.

Records: `imaging.convert.records`. Whatever is torn at its end is dropped. Memory: one record.
"""

from collections.abc import Iterable, Iterator

from imaging.convert.records import (
    HEAD,
    MAX_PAYLOAD,
    Mark,
    Record,
    Session,
    build_session,
    is_sound,
    parse_digests,
    parse_mark,
    parse_places,
    parse_session,
)
from imaging.device import ResizableDevice, read_bytes
from imaging.digest import DIGEST_SIZE, DigestBuilder, block_count
from imaging.errors import JournalInvalid


class Journal:
    """The records in a file, which stays open.

    Attributes:
        session: What it is about; None: it is empty, or not readable.
        mark: The last one; None: there is none.
        position: Where in the file the record lies that was read last.
    """

    def __init__(self, file: ResizableDevice) -> None:
        """Read all of it, to its last mark."""
        self._file = file
        self._salt = b""
        self._end = self._begin = 0
        self.session: Session | None = None
        self.mark: Mark | None = None
        self.position = 0
        self._read()

    def clear(self) -> None:
        """Forget everything, durably: what it speaks of is about to change."""
        self._file.truncate(0)
        self._file.flush()
        self.session = self.mark = None
        self._end = 0

    def begin(self, session: Session) -> None:
        """Begin anew, durably."""
        self._set(session)
        self._append(build_session(session))
        self._begin = self._end

    def go_on(self) -> None:
        """Drop what stands behind the last mark, durably, so that it never counts."""
        self._file.truncate(self._end)
        self._file.flush()

    def add(self, records: Iterable[bytes]) -> None:
        """Append records that end with a mark, durably."""
        self._append(b"".join(records))

    def places(self) -> Iterator[int]:
        """Yield the blocks that have places, in their order.

        Raises:
            JournalInvalid: They are not as many as the mark says.
        """
        count, expected = 0, 0 if self.mark is None else self.mark.placed
        for kind, payload in self._replayed():
            if kind == Record.PLACES:
                blocks = parse_places(payload)
                count += len(blocks)
                yield from blocks
        if count != expected:
            raise JournalInvalid(
                f"places of {count} blocks, expected {expected}", found=count, expected=expected
            )

    def load_digests(self, digest: DigestBuilder) -> None:
        """Set the blocks before the mark.

        Raises:
            JournalInvalid: One of them lies behind it.
        """
        limit = 0 if self.mark is None else block_count(self.mark.offset)
        digest.set_zero(0, limit)
        for kind, payload in self._replayed():
            if kind == Record.DIGESTS:
                first, digests = parse_digests(payload)
                if first + len(digests) // DIGEST_SIZE > limit:
                    raise JournalInvalid(
                        f"a digest behind the mark, from block {first}", found=first, expected=limit
                    )
                digest.set_blocks(first, digests)

    @property
    def salt(self) -> bytes:
        """What records of this session are built with."""
        return self._salt

    def _set(self, session: Session) -> None:
        self.session = session
        self._salt = session.unique_id.bytes

    def _append(self, data: bytes) -> None:
        self._file.truncate(self._end + len(data))
        self._file.write(self._end, data)
        self._file.flush()
        self._end += len(data)

    def _read(self) -> None:
        for end, kind, payload in self._records(0, self._file.size):
            if kind == Record.SESSION:
                session = parse_session(payload)
                if session is None or self.session is not None:
                    return
                self._set(session)
                self._begin = self._end = end
            elif kind == Record.MARK:
                mark = parse_mark(payload)
                if mark is None:
                    return
                self.mark, self._end = mark, end

    def _replayed(self) -> Iterator[tuple[int, bytes]]:
        for _, kind, payload in self._records(self._begin, self._end):
            yield kind, payload

    def _records(self, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (end, kind, payload) of whole records, up to the first that is not."""
        while at + HEAD.size <= end:
            self.position = at
            head = HEAD.unpack(read_bytes(self._file, at, HEAD.size))
            at += HEAD.size
            if head[0] > min(MAX_PAYLOAD, end - at):
                return
            payload = read_bytes(self._file, at, head[0])
            at += head[0]
            is_first = self.session is None
            if is_first != (head[2] == Record.SESSION) or not is_sound(head, payload, self._salt):
                return
            yield at, head[2], payload
