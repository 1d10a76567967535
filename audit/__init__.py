"""Where the disk went: what images cost, share, and could still share. Reads, never changes a store."""
