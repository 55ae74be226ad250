"""What all else runs on: tasks, clocks, and words for the log."""
