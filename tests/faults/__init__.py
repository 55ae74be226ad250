"""What becomes of the record when the process dies at any step, or the machine under it fails."""
