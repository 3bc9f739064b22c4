"""Reports in one HTML file. No TensorFlow."""
