"""What every function needs to run: settings, logs and traces."""
