"""What an operator reads: the jobs, one job's story, what it cost. Nothing here writes."""
