"""What `lord-fast bench` measures; bench/ times the same cases under pytest-benchmark."""
