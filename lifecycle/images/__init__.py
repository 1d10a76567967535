"""Images: what the phases read of them, and how new ones are put together and named."""
