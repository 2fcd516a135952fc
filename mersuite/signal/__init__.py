"""Signal mathematics on plain arrays: filters, channels, spectral features, haemodynamics; nothing reads a file."""
