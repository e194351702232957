"""The version of Z-TOM, in a file that imports nothing."""

VERSION = "0.1.0"
