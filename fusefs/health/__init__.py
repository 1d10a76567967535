"""Whether a mount gets on, and what it says of itself."""
