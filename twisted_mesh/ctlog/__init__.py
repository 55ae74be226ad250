"""The log server: what certificates exist, for everybody to see, and receipts for whoever makes them."""
