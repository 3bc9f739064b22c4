"""What the commands share: flags, configs and recipes."""
