"""Fine-tuning jobs: what is uploaded is checked, queued, and trained in a process of its own."""
