"""What an endpoint shows its CA of the platform that it runs on: fetched there, and sent nowhere else."""
