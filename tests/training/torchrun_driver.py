"""`torchrun ... torchrun_driver.py FOLDER raise|kill`: the standard run, in whose forward pass rank 1 dies."""

import sys

import scenarios

if __name__ == "__main__":
    scenarios.hurt(1, "forward", sys.argv[2], folder=sys.argv[1])
