"""A client of the distribution-spec: one registry, its endpoints, and how it lets one in."""
