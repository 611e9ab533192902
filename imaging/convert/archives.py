"""The archive formats, one class each; a format's sink and check are imported when they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from uuid import UUID

from imaging.convert.archive import Appendable, ArchiveSink, Extents, PieceCheck, State
from imaging.digest import DigestBuilder


@dataclass(frozen=True, slots=True)
class TarGzArchive:
    """The tar.gz that Google Cloud makes an image of.

    Attributes:
        one_member: One gzip member in all, which every reader takes whole; else one for each 2 MiB of the disk.
    """

    one_member: bool

    @property
    def encoding(self) -> str:
        """See `ArchiveFormat`."""
        return f"targz/{'one' if self.one_member else 'many'}/isal-{version('isal')}"

    @property
    def stride(self) -> int:
        """See `ArchiveFormat`."""
        from imaging.convert.targz import TarGzSink  # noqa: PLC0415 - the format that is used is imported

        return TarGzSink.unit

    def sink(
        self, file: Appendable, size: int, extents: Extents, states: Sequence[State]
    ) -> ArchiveSink:
        """See `ArchiveFormat`."""
        from imaging.convert.options import Options  # noqa: PLC0415
        from imaging.convert.targz import TarGzSink, TarGzState  # noqa: PLC0415

        options = Options(UUID(int=0), 0, extents=extents(), one_member=self.one_member)
        state = TarGzState(*states[-1]) if states else None
        return TarGzSink(file, size, options, state=state)

    def check(
        self, size: int, extents: Extents, states: Sequence[State], digest: DigestBuilder
    ) -> PieceCheck:
        """See `ArchiveFormat`."""
        from imaging.convert.targz import SparseMap  # noqa: PLC0415
        from imaging.convert.targz_check import TarGzCheck  # noqa: PLC0415

        del states
        return TarGzCheck(SparseMap(extents()), size, digest, one_member=self.one_member)


@dataclass(frozen=True, slots=True)
class VmdkArchive:
    """A stream-optimized VMDK, as VM Import of AWS takes it."""

    @property
    def encoding(self) -> str:
        """See `ArchiveFormat`."""
        return f"vmdk/fast/isal-{version('isal')}"

    @property
    def stride(self) -> int:
        """See `ArchiveFormat`."""
        from imaging.convert.vmdk_stream import FlowingVmdkSink  # noqa: PLC0415

        return FlowingVmdkSink.unit

    def sink(
        self, file: Appendable, size: int, extents: Extents, states: Sequence[State]
    ) -> ArchiveSink:
        """See `ArchiveFormat`."""
        from imaging.convert.options import Options  # noqa: PLC0415
        from imaging.convert.vmdk_stream import FlowingVmdkSink  # noqa: PLC0415

        del extents
        return FlowingVmdkSink(file, size, Options(UUID(int=0), 0), states=states)

    def check(
        self, size: int, extents: Extents, states: Sequence[State], digest: DigestBuilder
    ) -> PieceCheck:
        """See `ArchiveFormat`."""
        from imaging.convert.vmdk_check import VmdkCheck  # noqa: PLC0415

        del extents
        return VmdkCheck(size, states, digest)
