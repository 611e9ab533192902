"""convert: copy a disk into a sink, whatever kind the sink is of. Opens and commits nothing."""

from collections.abc import Callable

from imaging.convert.copy import copy_random
from imaging.convert.ordered import copy_ordered
from imaging.convert.sink import Checkpoints, OrderedSink, RandomSink
from imaging.device import BlockDevice
from imaging.digest import DigestBuilder


def convert(
    source: BlockDevice,
    sink: RandomSink | OrderedSink,
    *,
    digest: DigestBuilder | None = None,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Copy the disk `source` into `sink` and finish it. Blocking.

    Args:
        source: Read from several threads at once, as its contract allows.
        sink: Made for a disk of at least `source.size` bytes. The file below is the caller's to commit.
        digest: Gets the digest of every block of the source; None: nothing is hashed.
        progress: Called with the bytes finished since the last call, holes included; from any thread, one call at a
            time.
        stop: Polled every few MiB; answering true ends the work.
        checkpoints: Of a random sink: where to begin, and what is told how far the copy is.

    Raises:
        Stopped: `stop` answered true.
        ImagingError: The source or the sink failed; the first error counts. The sink is not finished then.
    """
    if isinstance(sink, OrderedSink):
        copy_ordered(source, sink, digest=digest, progress=progress, stop=stop)
    else:
        copy_random(
            source, sink, digest=digest, progress=progress, stop=stop, checkpoints=checkpoints
        )
    sink.finish()
