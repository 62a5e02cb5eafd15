"""Large files: written straight to the disk, copied, read and checked in one pass."""
