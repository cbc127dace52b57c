"""`python -m bunny.cli`: the `bunny` command where scripts are not on the path."""

from bunny.cli.app import main

if __name__ == "__main__":
    main()
