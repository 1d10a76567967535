"""What Go's standard library does, to the byte, where phases must do the same."""
