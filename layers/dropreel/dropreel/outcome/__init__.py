"""How a job ends: its video is delivered or its failure is explained."""
