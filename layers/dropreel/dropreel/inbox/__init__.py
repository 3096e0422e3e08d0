"""What an upload becomes: files are paired, read and made into a job."""
