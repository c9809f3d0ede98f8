"""`python -m ngpt_lab`, the same as `ngpt-lab`."""

from ngpt_lab.cli import main

if __name__ == "__main__":
    main()
