"""The wire contract of imageport: messages, codec, signing, sealing and state machines. No sockets, files or clock."""
