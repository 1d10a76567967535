"""The Docker daemon: how it is found, what it is asked, and its two image stores."""
