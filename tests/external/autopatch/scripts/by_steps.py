"""`next(it)` in a while loop, the iterator made again when it ends."""

from common import data, finish, network, seed
import torch
from torch.utils.data import DataLoader

seed()
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
loader = DataLoader(data(), batch_size=8, shuffle=True)
it = iter(loader)
step, epoch = 0, 0
losses = []
while step < 15:
    try:
        x, y = next(it)
    except StopIteration:
        epoch += 1
        it = iter(loader)
        x, y = next(it)
    loss = torch.nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
    step += 1
    print(step, epoch, loss.item(), flush=True)
print(sum(losses))
finish(model)
