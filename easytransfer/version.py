"""The release, for whoever must not import the package itself."""

VERSION = "2.0.0"
