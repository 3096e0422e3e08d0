"""What every function needs to run: settings and logs."""
