"""Train a model of the zoo: `python train.py squeezenet1_1 --dataset cifar10`; `--help` tells the rest."""

import sys

from zoo.train_cli import main

if __name__ == "__main__":
    sys.exit(main())
