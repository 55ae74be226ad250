"""Who may do what at the CA, and which entries buy which names."""
