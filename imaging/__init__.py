"""Disk bytes and guests: devices, formats, digest. No network and no event loop."""
