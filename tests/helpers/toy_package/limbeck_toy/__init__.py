"""One kind of everything: a filter, a set filter, a generator, an engine and a student."""
