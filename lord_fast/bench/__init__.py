"""The measurements of `lord-fast bench`. The scripts in bench/ run them under pytest-benchmark."""
