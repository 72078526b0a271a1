"""From query vectors to ranked categories with probabilities."""
