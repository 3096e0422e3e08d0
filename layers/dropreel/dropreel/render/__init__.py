"""A job on its way to a video: validation, admission, submission and polling."""
