"""The policy at the CA: what it is asked, what it has decided, and who may take it back."""
