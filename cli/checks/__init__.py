"""What `ocistow doctor` looks at; each function yields checks, and raises nothing that it knows."""
