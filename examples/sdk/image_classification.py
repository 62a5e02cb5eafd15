"""Classify scikit-learn's digits in plain PyTorch, on as many processes as torchrun starts.

    python image_classification.py
    python -m torch.distributed.run --standalone --nproc-per-node 2 -- image_classification.py

The lines with `pf` are all that a script needs to report, to upload and to save in an emergency.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import curitorch.external.sdk as pf


def main():
    """Train, from the checkpoint in the directory if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=64, help="of all processes together")
    parser.add_argument("--save_interval", type=int, default=50)
    parser.add_argument("--save_dir", default=os.environ.get("CKPT_DIR", "saves"))
    args = parser.parse_args()

    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    step = 0
    path = Path(args.save_dir, "checkpoint.pt")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        state = torch.load(path)
        step = state["step"]
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    model = DistributedDataParallel(net) if ranks > 1 else net

    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
    sampler = pf.ResumableRandomSampler(
        len(data),
        args.batch_size,
        drop_last=True,
        data_parallel_rank=rank,
        data_parallel_size=ranks,
    )
    sampler.set_processed_steps(step)
    loader = DataLoader(data, batch_sampler=sampler)

    pf.init(args.steps, processed_steps=step)
    batches = iter(loader)
    while step < args.steps:
        with pf.train_step():
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                batch = next(batches)
            outputs = model(batch[0])
            loss = torch.nn.functional.cross_entropy(outputs, batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        accuracy = (outputs.argmax(1) == batch[1]).float().mean()
        pf.metric({"train/loss": loss, "train/acc": accuracy})
        if step % args.save_interval == 0 or step == args.steps or pf.is_emergency_save():
            if rank == 0:
                state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({"step": step, **state}, path)
            pf.upload_checkpoint()
    if rank == 0:
        print(f"loss {loss:.3f}, accuracy {accuracy:.3f}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
