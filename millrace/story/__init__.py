"""The story of one answer: what was shown, what the user did, what came of it, and which parameters it moved."""
