"""Ray Serve applications of Z-TOM."""
