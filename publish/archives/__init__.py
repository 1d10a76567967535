"""Images in tar archives: read where they lie or as they come, and written in one stream."""
