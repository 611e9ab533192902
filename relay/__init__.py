"""The thin cloud relay: REST and websocket over a store. Never sees disk bytes, keys or clear secrets."""
