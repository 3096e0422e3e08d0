"""The words that all other packages use: jobs, offers, errors, events and messages."""
