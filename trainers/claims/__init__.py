"""Each paper's central claim in miniature: a baseline, the method, several seeds, the difference with its interval."""
