"""What a mount asks of the system around it: processes, mount points, service managers."""
