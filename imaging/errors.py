"""ImagingError tree: all that can be wrong with an image, a device or a guest; stable codes.

ImagingError                 imaging.error
├── DeviceError              imaging.device
│   ├── OutOfRange           imaging.out-of-range
│   ├── DeviceClosed         imaging.closed
│   ├── ReadOnlyDevice       imaging.read-only
│   └── DeviceIOError        imaging.io
└── InvalidImage             imaging.invalid (subclasses live here too, one a cause)
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

    def __init__(self, message: str, **fields: Any) -> None:  # noqa: ANN401  (facts of any kind, for logs)
        super().__init__(message)
        self.fields = fields


class DeviceError(ImagingError):
    """A device did not do what it was asked."""

    code = "imaging.device"
    exit_code = 74


class OutOfRange(DeviceError):
    """A range is not inside the device."""

    code = "imaging.out-of-range"


class DeviceClosed(DeviceError):
    """The device was closed before the call."""

    code = "imaging.closed"


class ReadOnlyDevice(DeviceError):
    """A write reached a device that was opened for reading."""

    code = "imaging.read-only"


class DeviceIOError(DeviceError):
    """The operating system or the share failed a read or a write."""

    code = "imaging.io"
    retryable = True
    fix = "Look at the storage below the image; the operation may be tried again."


class InvalidImage(ImagingError):
    """The image file breaks its format's rules."""

    code = "imaging.invalid"
    fix = "Make the image anew from its source; imageport never guesses at damaged metadata."
