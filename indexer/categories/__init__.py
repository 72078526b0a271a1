"""Categories: what a user wants to recognise, from files and as columns of an index."""
