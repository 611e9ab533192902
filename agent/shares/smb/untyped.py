"""Names for smbprotocol's objects: the library has no types, so these say what an `Any` is. Nothing but aliases."""

from typing import Any, TypeAlias

LibRequest: TypeAlias = Any
"""`smbprotocol.connection.Request`: one request in flight, with the `head` and `body` that we add."""

LibMessage: TypeAlias = Any
"""A `smbprotocol.structure.Structure`: a message to send, or the header of an answer."""

LibSession: TypeAlias = Any
"""`smbprotocol.session.Session`."""

LibTree: TypeAlias = Any
"""`smbprotocol.tree.TreeConnect`."""

LibOpen: TypeAlias = Any
"""`smbprotocol.open.Open`: an open file or folder."""
