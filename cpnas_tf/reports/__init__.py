"""Reports, each a single HTML file. No TensorFlow."""
