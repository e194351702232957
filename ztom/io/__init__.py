"""Files: places on this machine, and strict YAML of what a person wrote."""
