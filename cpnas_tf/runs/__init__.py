"""What a run keeps in its --workdir: its record, logs and checkpoints. A module for each."""
