"""From a command line and the environment to what a phase may ask and open."""
