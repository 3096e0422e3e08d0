"""What an operator runs against a deployed stack. Uses the environment's AWS credentials."""
