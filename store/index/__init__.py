"""index.sqlite: what makes the store quick or careful, and can be lost."""
