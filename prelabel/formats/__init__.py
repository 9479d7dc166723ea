"""Labels for other tools: one file a format, each `write_…(path, videos)`, a video at a time in memory."""
