"""A smaller student out of the teacher's own layers: the least important are dropped one by one, and the rest is healed."""
