"""Where the phases look images up and save them, one module each."""
