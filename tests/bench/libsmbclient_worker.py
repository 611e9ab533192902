"""One transfer by libsmbclient (Debian's python3-smbc): a peer of the benchmark. Runs with the system's Python.

Run as `/usr/bin/python3 libsmbclient_worker.py read|write PORT USER PASSWORD LOCAL_FILE`; prints seconds, CPU seconds.
"""

import os
import sys
import time

import smbc

PIECE = 1 << 20

verb, port, user, password, local = sys.argv[1:]
context = smbc.Context(auth_fn=lambda *_: ("WORKGROUP", user, password))
context.port = int(port)
name = "image.raw" if verb == "read" else "written.raw"
flags = os.O_RDONLY if verb == "read" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
file = context.open(f"smb://127.0.0.1/plain/{name}", flags, 0o666)
wall, cpu = time.perf_counter(), time.process_time()
if verb == "read":
    while file.read(PIECE):
        pass
else:
    with open(local, "rb") as source:  # noqa: PTH123  (nothing of ours is on this path)
        while block := source.read(PIECE):
            file.write(block)
file.close()
print(time.perf_counter() - wall, time.process_time() - cpu)  # noqa: T201
