"""Is what was taught better than zero-shot, and does it break nothing?"""
