"""One machine: the embedded AWS, the stand-ins for the providers, the demo."""
