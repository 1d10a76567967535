# What is installed says how it is completed, so this never gets old.
_OCISTOW_COMPLETE=fish_source ocistow | source
