"""A job on its way to a video: preparation, admission, submission and polling."""
