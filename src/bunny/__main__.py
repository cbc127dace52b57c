"""`python -m bunny`: the `bunny` command where scripts are not on the path, as `torchrun -m bunny` starts it."""

from bunny.cli.app import main

if __name__ == "__main__":
    main()
