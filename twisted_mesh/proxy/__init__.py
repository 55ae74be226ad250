"""The sidecar: connections of programs that know nothing of the mesh, carried over it."""
