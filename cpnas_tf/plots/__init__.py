"""The figures. No TensorFlow."""
