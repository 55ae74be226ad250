"""What twistd starts: options and services of mesh-ca and mesh-server."""
