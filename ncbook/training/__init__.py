"""Training: a `Recipe` goes in, a stream of `Snapshot`s comes out."""
