"""Ways of a build from disk into a daemon and a registry, measured side by side.

What `ocistow bench` runs, and what the other benchmarks of a checkout stand on: whole
processes, their servers, the machine, and how contestants compare.
"""
