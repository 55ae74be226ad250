"""TLS: contexts, the verify callback, and the one seam through which the mesh listens and connects."""
