"""Finding what became wrong with a store, and keeping bad blobs from whoever would read them."""
