"""Meters, as examples of image classification have them."""

import enum


class Summary(enum.Enum):
    NONE = 0
    AVERAGE = 1


class AverageMeter:
    def __init__(self, name, fmt=":f", summary_type=Summary.AVERAGE):
        self.name, self.fmt, self.summary_type = name, fmt, summary_type
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count

    def __str__(self):
        return ("{name} {val" + self.fmt + "} ({avg" + self.fmt + "})").format(**self.__dict__)


class ProgressMeter:
    def __init__(self, batches, meters, prefix=""):
        self.batches, self.meters, self.prefix = batches, meters, prefix

    def display(self, batch):
        entries = [f"{self.prefix}[{batch}/{self.batches}]", *map(str, self.meters)]
        print("\t".join(entries), flush=True)
