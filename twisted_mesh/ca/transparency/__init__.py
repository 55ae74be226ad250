"""The CA towards logs of certificates: what is shown to them, what they answer, and how many must."""
