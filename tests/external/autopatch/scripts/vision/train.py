"""Image classification: arguments, meters, top-1, random crops and flips, warm-up, best model."""

import argparse
import os
import random
import shutil

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from .meters import AverageMeter, ProgressMeter, Summary
from .net import smallnet

best_acc1 = 0


class Images(Dataset):
    def __init__(self, count, train):
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(count, 1, 12, 12, generator=generator)
        self.labels = torch.randint(0, 4, (count,), generator=generator)
        self.train = train

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        if self.train:
            if random.random() < 0.5:
                image = image.flip(-1)
            top, left = (int(torch.randint(0, 5, (1,))) for _ in range(2))
            return image[:, top : top + 8, left : left + 8], self.labels[index]
        return image[:, 2:10, 2:10], self.labels[index]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("-b", "--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--print-freq", type=int, default=2)
    parser.add_argument("--resume", default="checkpoint.pth.tar")
    parser.add_argument("--pretrained", default="")
    args = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    main_worker(args)


def main_worker(args):
    global best_acc1
    model = smallnet()
    if args.pretrained:
        print("=> loading pretrained weights", args.pretrained)
        model.load_state_dict(torch.load(args.pretrained, weights_only=True))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    train_loader = DataLoader(Images(40, True), args.batch_size, shuffle=True, drop_last=True)
    val_loader = DataLoader(Images(16, False), args.batch_size)
    print("=> training", sum(p.numel() for p in model.parameters()), "parameters")
    for epoch in range(args.epochs):
        train(train_loader, model, criterion, optimizer, epoch, args)
        acc1 = validate(val_loader, model, criterion, args)
        scheduler.step()
        is_best = acc1 > best_acc1
        best_acc1 = max(acc1, best_acc1)
        state = {"epoch": epoch + 1, "state_dict": model.state_dict(), "best_acc1": best_acc1}
        save_checkpoint(state, is_best, args.resume)
    total = sum(v.double().sum().item() for v in model.state_dict().values())
    print("final", total.hex(), best_acc1, model[1].calls, sorted(os.listdir(".")))


def train(train_loader, model, criterion, optimizer, epoch, args):
    losses, top1 = AverageMeter("Loss", ":.8e", Summary.NONE), AverageMeter("Acc@1", ":6.2f")
    progress = ProgressMeter(len(train_loader), [losses, top1], prefix=f"Epoch: [{epoch}]")
    model.train()
    for i, (images, target) in enumerate(train_loader):
        output = model(images)
        loss = criterion(output, target)
        losses.update(loss.item(), images.size(0))
        top1.update(accuracy(output, target), images.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i % args.print_freq == 0:
            progress.display(i + 1)


def validate(val_loader, model, criterion, args):
    top1 = AverageMeter("Acc@1", ":6.2f")

    def run_validate(loader, base_progress=0):
        with torch.no_grad():
            for i, (images, target) in enumerate(loader):
                output = model(images)
                top1.update(accuracy(output, target), images.size(0))

    model.eval()
    run_validate(val_loader)
    print(f" * Acc@1 {top1.avg:.3f}", flush=True)
    return top1.avg


def save_checkpoint(state, is_best, filename):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, "model_best.pth.tar")


def accuracy(output, target):
    with torch.no_grad():
        return output.argmax(1).eq(target).float().mean().item() * 100.0


if __name__ == "__main__":
    main()
