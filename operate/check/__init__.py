"""The check of a deployed stack: does each link of the chain hold, and if not, what to do."""
