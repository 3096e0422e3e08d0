"""What every function needs to run: settings, logs, and the decorator of the steps."""
