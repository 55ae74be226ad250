"""What twistd and the programs mesh-ca and mesh-server start: their options and services."""
