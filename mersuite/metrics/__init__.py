"""The challenge's metrics, one file each."""
