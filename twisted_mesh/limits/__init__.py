"""How often, how many, and whose turn it is."""
