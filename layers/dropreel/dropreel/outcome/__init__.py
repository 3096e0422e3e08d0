"""How a job ends: its video is delivered, its failure is explained, nothing is forgotten."""
