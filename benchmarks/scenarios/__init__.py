"""End to end, whole processes: what somebody waits for, next to what they would use instead."""
