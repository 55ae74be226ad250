"""An identity as files, for programs that are not of the mesh: written whole, kept fresh, and told of."""
