"""Where keys are made and sign that are not in this process's files."""
