"""What is believed now, who is connected by it, and what changes when it does."""
