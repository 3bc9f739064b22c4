"""CP-NAS."""
