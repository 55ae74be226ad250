"""An issuing CA's life: prepared, activated, retired, forgotten."""
