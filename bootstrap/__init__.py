"""The rounds: detector and attention check each other; a round that makes things worse is rolled back."""
