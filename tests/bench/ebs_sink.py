"""An EBS endpoint that takes every block and keeps nothing: the sink that the benchmark's clients share.

Answers what both clients ask around the blocks (who am I, start, complete, describe) just well enough to end well.
Run as `python -m tests.bench.ebs_sink`; prints its port, then one JSON line for every `GET /report`.
"""

import asyncio
import json
import re
import sys
import time

from tests.bench import page_sink

_CHECKSUM = re.compile(rb"\r\nx-amz-checksum: *([^\r]*)", re.IGNORECASE)
_XML = b"<R xmlns='http://ec2.amazonaws.com/doc/2016-11-15/'>%b</R>"
_SNAPSHOT = (
    b"<snapshotSet><item><snapshotId>snap-0bench</snapshotId><status>completed</status>"
    b"<volumeSize>64</volumeSize></item></snapshotSet>"
)
_WHO = (
    b"<GetCallerIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><GetCallerIdentityResult>"
    b"<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
_START = {
    "SnapshotId": "snap-0bench",
    "Status": "pending",
    "StartTime": 1.7e9,
    "VolumeSize": 64,
    "BlockSize": 524288,
}
seen = page_sink.seen
asked = {"describe": 0}


class EbsSink(page_sink.Sink):
    """One connection."""

    def answer(self) -> None:
        method, target, _ = self.request.split(b"\r\n", 1)[0].split(b" ", 2)
        if method == b"PUT":
            self.page()
        elif target.startswith(b"/snapshots/completion"):
            self.reply(202, body=b'{"Status":"completed"}')
        elif target == b"/snapshots":
            self.reply(201, body=json.dumps(_START).encode())
        elif target == b"/report":
            self.reply(200, body=json.dumps(seen).encode())
            seen.update(bytes=0, puts=0, first=0.0, last=0.0)
            asked["describe"] = 0
        elif b"/sts/aws4_request" in self.request:
            self.reply(200, body=_WHO)
        else:
            self.control()

    def control(self) -> None:
        """EC2: nothing is there until the snapshot was started; then it is completed."""
        asked["describe"] += 1
        body = _SNAPSHOT if seen["puts"] else b""
        self.reply(200, body=_XML % body)

    def page(self) -> None:
        now = time.monotonic()
        seen["bytes"] += 524288
        seen["puts"] += 1
        seen["first"] = seen["first"] or now
        seen["last"] = now
        found = _CHECKSUM.search(self.request)
        checksum = b"x-amz-Checksum: " + found[1] + b"\r\n" if found else b""
        self.reply(201, checksum + b"x-amz-Checksum-Algorithm: SHA256\r\n", body=b"{}")


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(EbsSink, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
