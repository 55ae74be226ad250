"""HTTP/1.1 within bounds, for servers and clients."""
