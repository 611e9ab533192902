"""Conditional headers and ranges of the Blob service: parses them and decides; touches no blob."""

import re
from email.utils import parsedate_to_datetime

from appliance.sim.call import Call, Refusal

CONDITION_HEADERS = (
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "x-ms-if-sequence-number-le",
    "x-ms-if-sequence-number-lt",
    "x-ms-if-sequence-number-eq",
    "x-ms-if-tags",
)
PAGE = 512

_RANGE = re.compile(r"bytes=([0-9]{1,19})-([0-9]{0,19})")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,19}")


def whole_number(text: str) -> int | None:
    """Return a decimal number of at most 19 ASCII digits, None for any other text."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def invalid_header(name: str, value: str, why: str) -> Refusal:
    """Make the 400 for a header whose value is wrong."""
    return Refusal(
        400,
        "InvalidHeaderValue",
        "The value for one of the HTTP headers is not in the correct format.",
        detail=f"{name}: {value!r}: {why}",
    )


def check_conditions(
    call: Call, *, etag: str, modified: float, sequence: int | None = None
) -> None:
    """Hold the request's If-* headers against an existing object.

    Raises:
        Refusal: 412 ConditionNotMet or SequenceNumberConditionNotMet, or 304 for a read that is up to date.
    """
    if call.header("x-ms-if-tags"):
        raise invalid_header("x-ms-if-tags", call.header("x-ms-if-tags"), "not simulated")
    wanted = call.header("If-Match")
    if wanted and wanted != "*" and etag not in _etags(wanted):
        raise _not_met()
    unwanted = call.header("If-None-Match")
    if unwanted and (unwanted == "*" or etag in _etags(unwanted)):
        raise _unmodified(call)
    _check_dates(call, modified)
    if sequence is not None:
        _check_sequence(call, sequence)


def _etags(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _check_dates(call: Call, modified: float) -> None:
    since, until = call.header("If-Modified-Since"), call.header("If-Unmodified-Since")
    if since and int(modified) <= _date(since, "If-Modified-Since"):
        raise _unmodified(call)
    if until and int(modified) > _date(until, "If-Unmodified-Since"):
        raise _not_met()


def _date(text: str, name: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError as err:
        raise invalid_header(name, text, "no RFC 1123 date") from err


def _check_sequence(call: Call, sequence: int) -> None:
    rules = {
        "x-ms-if-sequence-number-le": sequence.__le__,
        "x-ms-if-sequence-number-lt": sequence.__lt__,
        "x-ms-if-sequence-number-eq": sequence.__eq__,
    }
    for name, holds in rules.items():
        text = call.header(name)
        if not text:
            continue
        number = whole_number(text)
        if number is None:
            raise invalid_header(name, text, "no whole number")
        if not holds(number):
            raise Refusal(
                412,
                "SequenceNumberConditionNotMet",
                "The sequence number condition specified was not met.",
            )


def _not_met() -> Refusal:
    return Refusal(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )


def _unmodified(call: Call) -> Refusal:
    refusal = _not_met()
    refusal.status = 304 if call.method in ("GET", "HEAD") else 412
    return refusal


def byte_range(call: Call) -> tuple[int, int | None] | None:
    """Return (offset, length or None to the end) of x-ms-range or Range; None when there is neither."""
    text = call.header("x-ms-range") or call.header("Range")
    if not text:
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        raise invalid_header("Range", text, "expected bytes=first-last")
    first, last = int(match[1]), match[2]
    if last and int(last) < first:
        raise invalid_header("Range", text, "ends before it begins")
    return first, int(last) - first + 1 if last else None


def page_range(call: Call, size: int) -> tuple[int, int]:
    """Return (offset, length) of a page write or clear: given, whole pages, inside the object."""
    found = byte_range(call)
    if found is None:
        raise Refusal(
            400,
            "MissingRequiredHeader",
            "An HTTP header that's mandatory for this request is not specified.",
            detail="x-ms-range",
        )
    offset, length = found
    if length is None or offset % PAGE or length % PAGE or offset + length > size:
        raise Refusal(
            416,
            "InvalidPageRange",
            "The page range specified is invalid.",
            detail=f"whole pages of {PAGE} bytes inside {size} bytes",
        )
    return offset, length


def window(call: Call, size: int) -> tuple[int, int]:
    """Return (offset, length) of a read, cut to the object's end; the whole object when no range is given."""
    found = byte_range(call)
    if found is None:
        return 0, size
    offset, length = found
    if offset >= size:
        raise Refusal(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return offset, min(size - offset, size if length is None else length)
