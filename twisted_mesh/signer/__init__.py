"""Keys behind a socket: the protocol, who asks by it and who answers."""
