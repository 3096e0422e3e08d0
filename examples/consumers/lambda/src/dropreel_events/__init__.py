"""The types of each event's `detail`. `make events` writes the modules from the JSON Schemas."""
