"""The command `onward`, also as `python -m onward`: the import of the package looks first whose folders those are."""

from launch.cli import main

if __name__ == "__main__":
    main()
