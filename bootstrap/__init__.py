"""The rounds: detector and attention check each other; a round that makes things worse is rolled back."""

import diffugen  # noqa: F401 (first of all: it turns telemetry off)
