"""What ten million images behind a registry need, reckoned and simulated: docs/scale.md."""
