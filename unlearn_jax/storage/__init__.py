"""Files that are read back: written whole, sealed by a checksum, named injectively."""
