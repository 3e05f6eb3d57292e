"""What is trained: each method turns its parameters into an `Injection`."""
