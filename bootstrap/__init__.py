"""The rounds: detector and attention check each other; a checkpoint is promoted only if it is no worse."""
