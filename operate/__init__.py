"""The operator's commands for a deployed stack. Uses the environment's AWS credentials."""
