"""Where the disk went: what images cost, share and could share; nothing here changes a store."""
