"""ImagingError tree: all that can be wrong with an image, a device or a guest; stable codes.

ImagingError                 imaging.error
├── DeviceError              imaging.device
│   ├── OutOfRange           imaging.out-of-range
│   ├── DeviceClosed         imaging.closed
│   ├── ReadOnlyDevice       imaging.read-only
│   ├── DeviceIOError        imaging.io
│   ├── DeviceFull           imaging.full
│   ├── FileMissing          imaging.file-missing
│   ├── FileExists           imaging.file-exists
│   ├── FileBusy             imaging.file-busy
│   ├── NotAFile             imaging.not-a-file
│   └── AccessDenied         imaging.access-denied
├── InvalidImage             imaging.invalid
│   ├── Truncated            imaging.truncated
│   ├── ChecksumMismatch     imaging.checksum
│   ├── BlockOverlap         imaging.block-overlap
│   ├── FormatMismatch       imaging.format-mismatch
│   ├── FormatUnsaid         imaging.format-unsaid
│   ├── ReferenceRefused     imaging.reference-refused
│   ├── ParentMismatch       imaging.parent-mismatch
│   ├── DigestManifestInvalid  imaging.digest-manifest
│   └── JournalInvalid       imaging.journal
├── UnsupportedImage         imaging.unsupported
│   ├── ParentNeeded         imaging.parent-needed
│   └── DiskTooLarge         imaging.disk-too-large
├── SizeRefused              imaging.size-refused
├── DigestIncomplete         imaging.digest-incomplete
└── Stopped                  imaging.stopped
"""

from typing import Any, ClassVar


class ImagingError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Stable name of the cause; scripts match on it.
        exit_code: sysexits number for the command line.
        http_status: Status if the error is answered over REST.
        fix: What the administrator can do, one sentence.
        fields: Facts of this case (path, offset, expected, found), for logs and `--json`.
    """

    code: ClassVar[str] = "imaging.error"
    exit_code: ClassVar[int] = 65
    http_status: ClassVar[int] = 422
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = ""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class DeviceError(ImagingError):
    """A device did not do what it was asked."""

    code = "imaging.device"
    exit_code = 74


class OutOfRange(DeviceError):
    """A range is not inside the device."""

    code = "imaging.out-of-range"
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class DeviceClosed(DeviceError):
    """The device was closed before the call."""

    code = "imaging.closed"
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class ReadOnlyDevice(DeviceError):
    """A write reached a device that was opened for reading."""

    code = "imaging.read-only"
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class DeviceIOError(DeviceError):
    """The operating system or the share failed a read or a write."""

    code = "imaging.io"
    retryable = True
    fix = "Look at the storage below the file that is named (room, rights, hardware); the operation may be tried again."


class DeviceFull(DeviceError):
    """There is no room for the bytes that were to be written, or the file system takes no file so large."""

    code = "imaging.full"
    exit_code = 73
    fix = (
        "Make room below the file that is named, or write to another file system; then do it again."
    )


class InvalidImage(ImagingError):
    """The image file breaks its format's rules."""

    code = "imaging.invalid"
    fix = "Make the image anew from its source; imageport never guesses at damaged metadata."


class FileMissing(DeviceError):
    """There is no file of that name."""

    code = "imaging.file-missing"
    exit_code = 66
    http_status = 404
    fix = "Check the path."


class FileExists(DeviceError):
    """A file of that name is there already, and nobody said that it may be replaced."""

    code = "imaging.file-exists"
    exit_code = 73
    http_status = 409
    fix = "Choose another name, or say that the file may be replaced (`--replace`)."


class FileBusy(DeviceError):
    """Another process of ours is writing the file."""

    code = "imaging.file-busy"
    exit_code = 75
    http_status = 409
    retryable = True
    fix = "Wait until the other process has ended, or end it; then do it again."


class NotAFile(DeviceError):
    """The path names a directory, a pipe, a socket or a character device."""

    code = "imaging.not-a-file"
    exit_code = 66
    fix = "Name a regular file or a block device."


class AccessDenied(DeviceError):
    """The operating system does not let this user open the file."""

    code = "imaging.access-denied"
    exit_code = 77
    http_status = 403
    fix = "Run as a user who may read the file; to write it or beside it, one who may do that."


class Truncated(InvalidImage):
    """Something that the metadata names lies behind the end of the file."""

    code = "imaging.truncated"
    fix = "The file is incomplete or damaged: copy it again and compare the file sizes."


class ChecksumMismatch(InvalidImage):
    """A structure is not what its own checksum says."""

    code = "imaging.checksum"
    fix = "The file is damaged: copy it again, or repair it with the hypervisor's own tools."


class BlockOverlap(InvalidImage):
    """Two blocks, or a block and the metadata, claim the same bytes of the file."""

    code = "imaging.block-overlap"


class FormatMismatch(InvalidImage):
    """The name promises a format that the content has no trace of."""

    code = "imaging.format-mismatch"
    fix = "If the file really is a raw disk, say so (`--format raw`); else it is damaged."


class FormatUnsaid(InvalidImage):
    """The file is to be written, but its format was only guessed: a guest can write any header into its raw disk."""

    code = "imaging.format-unsaid"
    exit_code = 2
    fix = "Say the format (`--format`), if the file really is what it looks like."


class ReferenceRefused(InvalidImage):
    """The image names a file that it may not: a path, a device, a link, or something outside of its folder."""

    code = "imaging.reference-refused"
    fix = "Put every file of the image into one folder and name them plainly; imageport follows no other reference."


class ParentMismatch(InvalidImage):
    """The file beside a differencing disk is not the parent that it was made from."""

    code = "imaging.parent-mismatch"
    fix = "Put the very parent beside it that the checkpoint was taken from, unchanged since."


class DigestManifestInvalid(InvalidImage):
    """A digest manifest breaks its rules, or its root does not follow from its digests."""

    code = "imaging.digest-manifest"
    fix = "Make it anew from an image that is known to be good: `imageport disk digest IMG --manifest`."


class JournalInvalid(InvalidImage):
    """The journal of a conversion that was interrupted contradicts itself."""

    code = "imaging.journal"
    fix = "Convert without `--resume`: the partial file and its journal are given up, everything is copied anew."


class UnsupportedImage(ImagingError):
    """A sound image that needs something imageport does not do."""

    code = "imaging.unsupported"
    fix = "Convert the image to raw, VHDX or plain VMDK with its hypervisor's tools first."


class ParentNeeded(UnsupportedImage):
    """A differencing disk: without its parent it is not a disk."""

    code = "imaging.parent-needed"
    fix = "Put its parent into the same folder, or merge the checkpoint with the hypervisor's tools first."


class DiskTooLarge(UnsupportedImage):
    """The format that is to be written has no disk of that size."""

    code = "imaging.disk-too-large"
    fix = "Choose a format that takes the size: raw, or vhdx:dynamic up to 64 TiB."


class SizeRefused(ImagingError):
    """The disk cannot get that size: it is no larger than before, or no whole number of sectors."""

    code = "imaging.size-refused"
    exit_code = 2
    fix = "Give a larger size; to make a disk smaller, shrink its file systems in the guest and write it anew."


class DigestIncomplete(ImagingError):
    """A root was asked for before every block had its digest: the disk would be short."""

    code = "imaging.digest-incomplete"
    exit_code = 70
    http_status = 500
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class Stopped(ImagingError):
    """The caller's `stop` ended the work on purpose."""

    code = "imaging.stopped"
    exit_code = 1
    http_status = 409
    fix = "Nothing is wrong: start it again when it is wanted."
