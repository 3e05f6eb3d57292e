"""Training methods; each turns its parameters into an `Injection`."""
